"""Refusals of the CA: a code for programs, a sentence for people."""

from __future__ import annotations

from typing import Literal

from fazai.errors import Refused

#: Why a peer is refused. On the wire all of them are `bad_certificate`; the sentence says which.
PeerCode = Literal["no_certificate", "unknown_ca", "expired", "not_yet_valid", "wrong_name", "revoked"]
PkiCode = (
    PeerCode
    # a token
    | Literal["bad_token", "token_used", "token_expired"]
    # a request for a certificate, or the certificate beside it
    | Literal["bad_request", "bad_signature", "bad_clock"]
    # a return after expiry: still valid, over the window, a second time
    | Literal["not_expired", "too_late", "already_returned"]
    # certificates come from an existing CA, not from ours
    | Literal["not_offered"]
)


class PkiError(Refused):
    """A certificate, a token or a request that is refused. Neither the text of a token nor a key is in it."""

    def __init__(
        self, code: PkiCode, message: str, *, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.code = code
