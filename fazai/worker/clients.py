"""Clients of the socket: processes, as the kernel names them, and who of them holds most."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Client(NamedTuple):
    """One process and its user. What is scarce is shared among users, then among the processes of each."""

    user: int
    process: int


NOBODY = Client(0, 0)


def client_of(sock: socket.socket) -> Client:
    """Return the process that connected this socket (SO_PEERCRED)."""
    process, user, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Client(user, process)


class Holdings:
    """Amounts that clients hold of something scarce."""

    def __init__(self, held: Iterable[tuple[Client, int]]) -> None:
        self._clients: Counter[Client] = Counter()
        self._users: Counter[int] = Counter()
        for client, amount in held:
            self._clients[client] += amount
            self._users[client.user] += amount

    def rank(self, client: Client) -> tuple[int, int]:
        """Return a key that is largest for the client that holds most, of the user who holds most."""
        return self._users[client.user], self._clients[client]

    def lead(self, client: Client, other: Client) -> int:
        """Return how much more the user of `client` holds than that of `other`; of one user: the client."""
        if client.user != other.user:
            return self._users[client.user] - self._users[other.user]
        return self._clients[client] - self._clients[other]


@dataclass(frozen=True, slots=True)
class Place(Generic[T]):
    """A session or connection: `since_s` is when it was used last, if it is idle, else when it began."""

    what: T
    client: Client
    idle: bool
    since_s: float


def find_place(places: Iterable[Place[T]], newcomer: Client) -> T | None:
    """Return what makes room for a newcomer, of the client that has most (the newcomer is counted): what is
    idle for longest; else the latest, where that client has two more than the newcomer has now."""
    places = list(places)
    have = Holdings([*((place.client, 1) for place in places), (newcomer, 1)])
    most = max(have.rank(place.client) for place in places)
    theirs = [place for place in places if have.rank(place.client) == most]
    # Of clients with one each, too: what nobody uses may be of a process that is no more.
    idle = [place for place in theirs if place.idle and have.lead(place.client, newcomer) >= 0]
    if idle:
        return min(idle, key=lambda place: place.since_s).what
    latest = max(theirs, key=lambda place: place.since_s)
    return latest.what if have.lead(latest.client, newcomer) >= 1 else None
