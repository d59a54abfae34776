"""Probe by ICMP echo, without root where the kernel lets this user (`net.ipv4.ping_group_range`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from fazai.compat.timeouts import deadline, deadline_at
from fazai.errors import InputError, Refused
from fazai.probes.reach import Anywhere, Endpoint, Reach, find_endpoints
from fazai.probes.result import ProbeResult, Stopwatch, check_timeout, describe_failure

MOST_ECHOES = 20
_HEADER = struct.Struct("!BBHHH")
_COOKIE_BYTES = 16
_PAUSE_S = 0.1
_READ_BYTES = 2048


async def probe_ping(
    host: str,
    *,
    count: int = 3,
    timeout_s: float = 5.0,
    family: int | None = None,
    reach: Reach | None = None,
) -> ProbeResult:
    """Send so many echo requests, each after the answer to the one before; ok: one was answered. Raises
    InputError, Refused where the kernel allows this user no ICMP."""
    if not 1 <= count <= MOST_ECHOES:
        raise InputError(f"{count} echo requests are not sent", hint=f"1 to {MOST_ECHOES}")
    times: list[float] = []
    sent, endpoint, failure = 0, None, "no answer in time"
    until = asyncio.get_running_loop().time() + check_timeout(timeout_s)
    try:
        async with deadline_at(until):
            endpoint = (await find_endpoints(host, None, reach or Anywhere(), family))[0]
        with contextlib.closing(_open_socket(endpoint)) as opened:
            for sequence in range(1, count + 1):
                if sequence > 1:
                    await asyncio.sleep(_PAUSE_S)
                left_s = until - asyncio.get_running_loop().time()
                if left_s <= 0:
                    break
                sent += 1
                with contextlib.suppress(TimeoutError):
                    async with deadline(left_s / (count - sequence + 1)):
                        times.append(await _echo(opened, endpoint, sequence))
    except (OSError, IndexError) as error:
        failure = describe_failure(error)
    facts = {"sent": sent, "received": len(times), "loss": round(1 - len(times) / max(sent, 1), 3)}
    if times:
        facts |= {
            "min_ms": min(times),
            "avg_ms": round(sum(times) / len(times), 3),
            "max_ms": max(times),
        }
    return ProbeResult(
        probe="ping",
        target=host,
        ok=bool(times),
        why=f"{len(times)} of {sent} echo requests were answered" if times else failure,
        latency_ms=times[0] if times else None,
        address=str(endpoint.address) if endpoint is not None else None,
        facts=facts,
    )


def _open_socket(endpoint: Endpoint) -> socket.socket:
    """Return a connected ICMP socket: of datagrams, which needs no privilege, else a raw one. Raises Refused,
    OSError."""
    protocol = socket.IPPROTO_ICMP if endpoint.address.version == 4 else socket.IPPROTO_ICMPV6
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            opened = socket.socket(endpoint.family, kind | socket.SOCK_NONBLOCK, protocol)
        except PermissionError:
            continue
        try:
            opened.connect((str(endpoint.address), 0))
        except OSError:
            opened.close()
            raise
        return opened
    raise Refused(
        "the kernel lets this user send no echo requests",
        hint=f"sysctl -w net.ipv4.ping_group_range='{os.getegid()} {os.getegid()}', or give the process "
        "CAP_NET_RAW",
    )


async def _echo(opened: socket.socket, endpoint: Endpoint, sequence: int) -> float:
    """Send one request, and return the milliseconds until its own answer; others are passed over. The
    caller's deadline holds. Raises OSError."""
    loop, cookie = asyncio.get_running_loop(), os.urandom(_COOKIE_BYTES)
    identifier = int.from_bytes(os.urandom(2))
    request_type, answer_type = (8, 0) if endpoint.address.version == 4 else (128, 129)
    watch = Stopwatch()
    # deadline: the caller's, `probe_ping`
    await loop.sock_sendall(opened, _pack(request_type, identifier, sequence, cookie))
    while True:
        packet = await loop.sock_recv(opened, _READ_BYTES)  # deadline: the caller's, `probe_ping`
        if opened.type == socket.SOCK_RAW and endpoint.address.version == 4:
            packet = packet[4 * (packet[0] & 15) :] if packet else b""  # behind the header of IP
        if _is_answer(packet, answer_type, sequence, cookie):
            return watch.read_ms()


def _is_answer(packet: bytes, answer_type: int, sequence: int, cookie: bytes) -> bool:
    """Return whether a packet answers this request: the cookie is known to nobody who did not see it."""
    if len(packet) < _HEADER.size:
        return False
    type_, code, _, _, number = _HEADER.unpack_from(packet)
    return (type_, code, number) == (answer_type, 0, sequence) and packet[_HEADER.size :] == cookie


def _pack(type_: int, identifier: int, sequence: int, cookie: bytes) -> bytes:
    """Return an echo request with its checksum (of ICMPv6 the kernel computes it)."""
    plain = _HEADER.pack(type_, 0, 0, identifier, sequence) + cookie
    total = sum(struct.unpack(f"!{len(plain) // 2}H", plain))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return _HEADER.pack(type_, 0, ~total & 0xFFFF, identifier, sequence) + cookie
