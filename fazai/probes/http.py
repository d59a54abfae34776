"""Probe of a web server: status, a few headers, and whether a text is in what it sends."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fazai.compat.timeouts import deadline
from fazai.errors import InputError
from fazai.probes.contexts import make_context
from fazai.probes.reach import Anywhere, Endpoint, Reach, check_host, find_endpoints
from fazai.probes.result import ProbeResult, Stopwatch, check_timeout, clean_text, describe_failure

if TYPE_CHECKING:
    import httpx

BODY_BYTES = 64 * 1024
MOST_REDIRECTS = 5
_HEADERS = ("server", "content-type", "content-length", "location")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpQuestion:
    """Question to a server. `status`: the only one that is right; without it those below 400 are.
    `contains`: a text that has to be in the first 64 KiB of the body. `ca`: whom to trust besides nobody
    else; `verify` False: anybody."""

    method: Literal["GET", "HEAD"] = "GET"
    status: int | None = None
    contains: str | None = None
    redirects: int = 0
    ca: Path | None = None
    verify: bool = True
    family: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.redirects <= MOST_REDIRECTS:
            raise InputError(f"at most {MOST_REDIRECTS} redirects are followed")
        if self.contains is not None and self.method == "HEAD":
            raise InputError("an answer to HEAD has no body that could contain a text")


@dataclass(slots=True)
class _Answer:
    status: int
    version: str
    headers: dict[str, str]
    location: str | None
    body: bytes
    cut: bool
    took_ms: float
    address: str


async def probe_http(
    url: str, question: HttpQuestion | None = None, *, timeout_s: float = 10.0, reach: Reach | None = None
) -> ProbeResult:
    """Ask a web server. Cookies, proxies and passwords of this machine are not used. Raises InputError,
    Refused."""
    import httpx

    question, reach = question or HttpQuestion(), reach or Anywhere()
    parsed = _parse_url(url)
    context = make_context(question.ca, verify=question.verify) if "https" in url[:5].lower() else None
    followed: list[str] = []
    try:
        async with deadline(check_timeout(timeout_s)):
            answer = await _ask(parsed, question, reach, context)
            while answer.location is not None and len(followed) < question.redirects:
                parsed = _next_url(parsed, answer.location)
                followed.append(clean_text(str(parsed)))
                if parsed.scheme == "https" and context is None:
                    context = make_context(question.ca, verify=question.verify)
                answer = await _ask(parsed, question, reach, context)
    except (httpx.HTTPError, OSError) as error:
        return ProbeResult(
            probe="http",
            target=clean_text(url),
            ok=False,
            why=_describe_http_failure(error),
            facts={"redirects": followed} if followed else {},
        )
    ok, why = _judge(answer, question)
    facts = {
        "status": answer.status,
        "version": answer.version,
        "bytes": len(answer.body),
        "cut": answer.cut,
        **answer.headers,
        **({"redirects": followed} if followed else {}),
    }
    return ProbeResult(
        probe="http",
        target=clean_text(url),
        ok=ok,
        why=why,
        latency_ms=answer.took_ms,
        address=answer.address,
        facts=facts,
    )


def _parse_url(text: str) -> httpx.URL:
    """Return a URL that may be asked. No word of one with a password is shown. Raises InputError."""
    import httpx

    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise InputError(
            f"{clean_text(text.rpartition('@')[2], 64)!r} is no URL", hint="https://HOST/"
        ) from None
    if url.userinfo:
        raise InputError("no user and no password stand in a URL that is probed")
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"{clean_text(text, 64)!r} is no URL of a web server", hint="https://HOST/")
    return url


def _next_url(url: httpx.URL, location: str) -> httpx.URL:
    """Return where a server redirects to. Raises OSError for what cannot be asked."""
    import httpx

    try:
        found = _parse_url(str(url.join(location)))
        check_host(found.host)
    except (httpx.InvalidURL, InputError, ValueError):
        raise OSError(f"it redirects to {clean_text(location, 64)!r}, which is no URL to ask") from None
    return found


async def _ask(
    url: httpx.URL, question: HttpQuestion, reach: Reach, context: ssl.SSLContext | None
) -> _Answer:
    """Ask the first address of the URL's host that accepts. The caller's deadline holds. Raises
    httpx.HTTPError, OSError, InputError, Refused."""
    import httpx

    port = url.port or (443 if url.scheme == "https" else 80)
    endpoints = await find_endpoints(url.host, port, reach, question.family)
    last: Exception = OSError("it has no address")
    for endpoint in endpoints:
        try:
            return await _ask_endpoint(url, port, endpoint, question, context)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            last = error
    raise last


async def _ask_endpoint(
    url: httpx.URL,
    port: int,
    endpoint: Endpoint,
    question: HttpQuestion,
    context: ssl.SSLContext | None,
) -> _Answer:
    import httpx

    there = url.copy_with(host=str(endpoint.address), port=port)
    host = url.copy_with(host=endpoint.name).netloc.decode("ascii")
    headers = {"Host": host, "User-Agent": "fazai-probe", "Accept-Encoding": "identity"}
    limits = httpx.Timeout(None, connect=5.0)  # the whole has the caller's deadline
    watch = Stopwatch()
    async with (
        httpx.AsyncClient(timeout=limits, trust_env=False, verify=context or False) as client,
        # deadline: the caller's, `probe_http`
        client.stream(
            question.method, there, headers=headers, extensions={"sni_hostname": endpoint.name}
        ) as got,
    ):
        took_ms = watch.read_ms()
        body, cut = await _read_body(got.aiter_raw())
    return _Answer(
        got.status_code,
        got.http_version,
        {name.replace("-", "_"): clean_text(got.headers[name]) for name in _HEADERS if name in got.headers},
        got.headers.get("location") if got.status_code in _REDIRECTS else None,
        body,
        cut,
        took_ms,
        str(endpoint.address),
    )


async def _read_body(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """Return the first bytes of a body, and whether there were more."""
    body = bytearray()
    async for chunk in chunks:  # deadline: the caller's, `probe_http`
        body += chunk[: BODY_BYTES + 1]
        if len(body) > BODY_BYTES:
            return bytes(body[:BODY_BYTES]), True
    return bytes(body), False


def _judge(answer: _Answer, question: HttpQuestion) -> tuple[bool, str]:
    said = f"it answers {answer.status}"
    if question.status is not None and answer.status != question.status:
        return False, f"{said}, not {question.status}"
    if question.status is None and answer.status >= 400:
        return False, said
    if question.contains is not None and question.contains.encode() not in answer.body:
        where = f"the first {BODY_BYTES // 1024} KiB" if answer.cut else "the body"
        return False, f"{said}, and {clean_text(question.contains, 64)!r} is not in {where}"
    return True, said


def _describe_http_failure(error: Exception) -> str:
    cause: BaseException | None = error
    deepest: BaseException = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {clean_text(cause.verify_message)}"
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        deepest = cause if isinstance(cause, OSError) and cause.errno else deepest
        cause = cause.__cause__ or cause.__context__
    return f"no usable answer: {describe_failure(deepest)}"
