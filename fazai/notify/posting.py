"""One POST of a channel: bounded in time and in what is read of the answer, which is never shown unmasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fazai.compat.timeouts import deadline
from fazai.masking import make_mask
from fazai.notify.contexts import certificate_problem, make_context
from fazai.notify.message import DeliveryError, make_line

_ANSWER_BYTES = 16 * 1024
_SAY_AGAIN = (408, 425, 429)
_LONGEST_S = 3600.0


async def post_once(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    ca: Path | None,
    timeout_s: float,
    secrets: Sequence[str],
) -> bytes:
    """Post, and return the beginning of the answer of a 2xx: such a status is a delivery, whatever becomes of
    its body. Redirects are not followed, and no proxy is used that the environment names. Raises
    DeliveryError."""
    import httpx

    verify = make_context(ca) if url.startswith("https:") else False
    status, again, read = 0, None, bytearray()
    try:
        async with deadline(timeout_s):
            client = httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=verify)
            async with client, client.stream("POST", url, content=body, headers=headers) as answer:
                status, again = answer.status_code, answer.headers.get("retry-after")
                async for chunk in answer.aiter_raw():
                    read += chunk[:_ANSWER_BYTES]
                    if len(read) >= _ANSWER_BYTES:
                        break
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if not 200 <= status < 300:
            raise DeliveryError(_describe_failure(error)) from None
    if 200 <= status < 300:
        return bytes(read[:_ANSWER_BYTES])
    text = make_line(make_mask(secrets)(bytes(read[:1024]).decode("utf-8", "replace")), 200)
    raise DeliveryError(
        f"it answers {status}{f': {text}' if text else ''}",
        permanent=300 <= status < 500 and status not in _SAY_AGAIN,
        again_s=_retry_after_s(again),
    )


def _describe_failure(error: Exception) -> str:
    """Return why there is no answer. No word of the error itself is shown: a token may stand in its URL."""
    import httpx

    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    return certificate_problem(error) or f"it is not reached: {type(error).__name__}"


def _retry_after_s(text: str | None) -> float | None:
    """Return the seconds that a receiver asks to wait for; a date says nothing."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 6:
        return None
    return min(float(text), _LONGEST_S)
