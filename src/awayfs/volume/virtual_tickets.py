"""``.awayfs/variant/TICKET``: one variant of one object, for whoever may see the object.

The other trees are for the user who mounted. A ticket is given, by ioctl, to a caller that has
the object's descriptor and may read the variant. It is a name that cannot be guessed, it is good
for that user alone, and it must be used soon. It shows the variant that
was asked for, with the attributes it had then, or nothing.
"""

from __future__ import annotations

import errno
import secrets

from msgspec import Struct

from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.virtual_node import Listing, Path, VirtualNode, directory

GOOD_NS = 30 * SECOND_NS
MOST = 10_000


class _Ticket(Struct):
    uid: int
    node: VirtualNode
    until_ns: int
    used: bool = False  # the kernel knows it


class TicketTree:
    """Tickets that were given and are not forgotten."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tickets: dict[bytes, _Ticket] = {}

    def give(self, uid: int, node: VirtualNode) -> bytes:
        """A ticket for ``uid`` to read ``node``; ENFILE when too many are out."""
        now = self._context.now()
        for name in [n for n, t in self._tickets.items() if not t.used and t.until_ns < now]:
            del self._tickets[name]
        if len(self._tickets) >= MOST:
            raise OSError(errno.ENFILE, "too many variants are open")
        name = secrets.token_hex(16).encode()
        self._tickets[name] = _Ticket(uid, node, now + GOOD_NS)
        return name

    def find(self, path: Path) -> VirtualNode:
        """What a ticket is for."""
        if not path:
            return directory(self._context.now(), 0o111)
        ticket = self._tickets.get(path[0])
        if len(path) > 1 or ticket is None:
            raise OSError(errno.ENOENT, "no such ticket")
        if not ticket.used and ticket.until_ns < self._context.now():
            raise OSError(errno.ENOENT, "the ticket was not used in time")
        ticket.used = True
        return ticket.node

    def check(self, path: Path, uid: int) -> None:
        """EACCES unless the ticket was given to ``uid``."""
        ticket = self._tickets.get(path[0])
        if ticket is not None and ticket.uid != uid:
            raise OSError(errno.EACCES, "the ticket is another user's")

    def entries(self, _path: Path) -> Listing:
        """They are not listed."""
        return []

    def forget(self, path: Path) -> None:
        """The kernel knows it no more."""
        self._tickets.pop(path[0], None)
