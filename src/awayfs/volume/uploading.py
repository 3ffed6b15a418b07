"""Large uploads in parts: one that was cut off goes on where it was.

How far it came is on record (``Intent.sent``) once that is durable on the server. It goes on only
with the very content that it began with, which its digest tells, and only where the remote finds
the staged file as it was left; else it begins anew. The last part is ``stage``'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from awayfs.core.parts import SMALLEST_PART, first_part, next_part
from awayfs.core.types import Entry
from awayfs.ports.remote import Intent, Sent
from awayfs.store.intents import Intents
from awayfs.volume.fault import fault
from awayfs.volume.link import Link
from awayfs.volume.meter import Way
from awayfs.volume.suspects import digest_of_file


def is_begun(intent: Intent) -> bool:
    """Whether an upload was cut off between two parts, so that nothing else was done for it."""
    return intent.sent is not None and intent.staged is None


class Uploads:
    """Sends all but the last part of a content."""

    def __init__(self, link: Link, intents: Intents) -> None:
        self._link = link
        self._intents = intents

    async def begin(
        self, seq: int, file: str, fd: int, size: int, still_same: Callable[[], Awaitable[None]]
    ) -> Sent | None:
        """What is staged now of a file of ``size`` bytes, open as ``fd``; None: nothing.

        The record's intent is stored already, and says how far an earlier try came. Raises
        ``RemoteError``, and what ``still_same`` raises when the file changes under it.
        """
        part = first_part(self._link.weak)
        if size <= part:
            if size > SMALLEST_PART:  # else there was no part
                self.forget(seq)
            return None
        digest = await asyncio.get_running_loop().run_in_executor(None, digest_of_file, file)
        sent = self._earlier(seq, digest, size)
        while size - (done := sent.length if sent else 0) > part:
            began = time.monotonic()
            end = done + part
            entry = await self._send(seq, fd, end, sent)
            await still_same()  # what changed on its way is nothing to go on from
            if entry is None:
                self._note(seq, None)  # what is there is not ours: all of it goes out anew
                return None
            sent = Sent(end, digest, entry.token)
            self._note(seq, sent)
            fault("replay.part")
            part = next_part(part, time.monotonic() - began)
        return sent

    def _earlier(self, seq: int, digest: bytes, size: int) -> Sent | None:
        found = self._intents.get(seq)
        sent = found[0].sent if found is not None else None
        if sent is None or (sent.digest == digest and sent.length < size):
            return sent
        self._note(seq, None)  # before anything else is staged there
        return None

    def forget(self, seq: int) -> None:
        """Nothing goes on from what is staged: it goes, or another content takes its place."""
        found = self._intents.get(seq)
        if found is not None and found[0].sent is not None:
            self._note(seq, None)

    async def _send(self, seq: int, fd: int, end: int, sent: Sent | None) -> Entry | None:
        found = self._intents.get(seq)
        assert found is not None, "an upload without an intent"
        op, directory = found[0].op, found[0].path.rpartition(b"/")[0]
        start, token = (sent.length, sent.token) if sent else (0, b"")
        with self._link.meter.moving(Way.UP) as moved:
            entry = await self._link.call(
                lambda remote: remote.stage_part(op, directory, fd, start, end, token)
            )
            moved.bytes = end - start if entry is not None else 0
        return entry

    def _note(self, seq: int, sent: Sent | None) -> None:
        found = self._intents.get(seq)
        if found is not None:
            intent, stage = found
            self._intents.set(seq, replace(intent, sent=sent), stage)
