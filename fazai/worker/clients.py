"""Clients of the socket: processes, as the kernel names them, and who of them holds most."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


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
