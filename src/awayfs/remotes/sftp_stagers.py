"""Where small uploads go: several channels, so that their fsyncs overlap.

OpenSSH serves a channel with a process that does one request after the other. An fsync waits for
the disk, mostly for the file system's journal; those of several processes share a commit of it. So
five channels make some five times as many small files durable in the same time as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_connection import Session
from awayfs.remotes.sftp_transfer import Transfer

SMALL = 64 << 10
MOST = 5
"""Channels for uploads. sshd allows ten in all, if nobody says otherwise (``MaxSessions``)."""

MANY = 8
"""So many files in each channel are worth one channel more."""


class _Stager(Struct):
    transfer: Transfer
    under_way: int = 0


class Stagers:
    """Picks a channel for each upload; ``first`` is the one that all else goes through."""

    def __init__(
        self, session: Session, first: Transfer, make: Callable[[Channel], Transfer]
    ) -> None:
        self._session = session
        self._make = make
        self._all = [_Stager(first)]
        self._opening: asyncio.Task[None] | None = None
        self._may_open = True

    @contextmanager
    def one(self, size: int) -> Iterator[Transfer]:
        """The channel for a file of ``size`` bytes, while it is sent."""
        stager = min(self._all, key=lambda one: one.under_way) if size <= SMALL else self._all[0]
        stager.under_way += 1
        if stager.under_way > MANY and size <= SMALL:
            self._begin_opening()
        try:
            yield stager.transfer
        finally:
            stager.under_way -= 1

    @property
    def own_uid(self) -> int | None:
        """Of the files that we make here, once one was made."""
        known = (one.transfer.own_uid for one in self._all)
        return next((uid for uid in known if uid is not None), None)

    def _begin_opening(self) -> None:
        """Nobody waits for it."""
        if self._opening is None and self._may_open and len(self._all) < MOST:
            self._opening = self._session.bulk.spawn(self._open())

    async def _open(self) -> None:
        try:
            channel = await self._session.one_more_channel()
            if channel is None:
                self._may_open = False
            else:
                self._all.append(_Stager(self._make(channel)))
        finally:
            self._opening = None
