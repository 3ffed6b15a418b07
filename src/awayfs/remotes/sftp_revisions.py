"""Which revision an operation may destroy, and whether that is what a move brought out.

A strong token is proof enough: whatever was written after the caller looked has another one.
Under a weak token (``sftp_clock``) an edit in the same second may hide, so the content is
compared: with the digest that the caller had us take of it (``Contents``), as it must before
it trusts a weak token at all; else, up to LARGEST_READ bytes, with a digest taken now, which
leaves only the time between the caller's look and ours. That digest counts as well where the token
has become strong since: an edit in the same second, after the digest, still hides under it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec import Struct

from awayfs.core.errors import Implausible, NotFound, Refused
from awayfs.core.types import Digest, Entry, Expected, Kind, OpId, RemotePath
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.names import staged_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_entries import join, matches, parent
from awayfs.remotes.sftp_view import View

LARGEST_READ = 16 << 20
REMEMBERED = 1024


class Contents:
    """Digests that were taken of weak revisions; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[RemotePath, tuple[bytes, bytes]] = OrderedDict()

    def note(self, path: RemotePath, digest: Digest) -> None:
        """Remember the digest just taken, if only it tells the revision apart."""
        if not digest.entry.weak:
            self.forget(path)
            return
        self._known[path] = (digest.entry.token, digest.blake2b)
        self._known.move_to_end(path)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def of(self, path: RemotePath, token: bytes) -> bytes | None:
        """The digest last taken of this path under this token."""
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == token else None

    def token(self, path: RemotePath) -> bytes | None:
        """The token under which a digest is remembered."""
        known = self._known.get(path)
        return known[0] if known is not None else None

    def forget(self, path: RemotePath) -> None:
        """What was read later, under a strong token, is not compared with an older digest."""
        self._known.pop(path, None)


class Revision(Struct, frozen=True):
    """``blake2b`` is set where the token alone would not do; ``proven`` says that it does."""

    entry: Entry
    expected: Expected
    blake2b: bytes | None = None

    @property
    def proven(self) -> bool:
        """Whether an equal look means equal content."""
        return not self.entry.weak or self.blake2b is not None


class Revisions:
    """Compares revisions on one server."""

    def __init__(
        self,
        channel: Channel,
        view: View,
        clock: ServerClock,
        contents: Contents,
        digest: Callable[[RemotePath], Awaitable[Digest]],
    ) -> None:
        self._channel = channel
        self._view = view
        self._clock = clock
        self._contents = contents
        self._digest = digest
        self._asked = False

    async def known(
        self, op: OpId, path: RemotePath, current: Entry, expected: Expected
    ) -> Revision | None:
        """What ``op`` may destroy at ``path``, None if that is not as expected (any more)."""
        if not matches(current, expected):
            return None
        if not _may_hide(current, expected):
            return self._strong(path, current, expected)
        if not self._clock.known:
            await self._ask_the_time(op, parent(path))
            again = await self._view.find(path)
            if again is None or not matches(again, expected):
                return None
            current = again
        if not _may_hide(current, expected):
            return self._strong(path, current, expected)
        blake2b = self._contents.of(path, current.token)
        if blake2b is None and current.size <= LARGEST_READ:
            blake2b = await self._content(path, expected)
            if blake2b is None:
                return None
        return Revision(current, expected, blake2b)

    def _strong(self, path: RemotePath, current: Entry, expected: Expected) -> Revision:
        """With the digest from when it was weak; once, as the caller may have read it since."""
        if not expected.content or current.kind is not Kind.FILE:
            return Revision(current, expected)
        blake2b = self._contents.of(path, current.token)
        self._contents.forget(path)
        return Revision(current, expected, blake2b)

    async def is_it(self, own: RemotePath, entry: Entry | None, revision: Revision) -> bool:
        """Whether ``entry``, which stands at our name ``own``, is that revision."""
        if entry is None or not matches(entry, revision.expected):
            return False
        if revision.blake2b is None:
            return True
        return await self._content(own, revision.expected) == revision.blake2b

    async def _content(self, path: RemotePath, expected: Expected) -> bytes | None:
        """Digest of what stands there, None if that is not as expected."""
        try:
            digest = await self._digest(path)
        except (NotFound, Refused, Implausible):
            return None
        return digest.blake2b if matches(digest.entry, expected) else None

    async def _ask_the_time(self, op: OpId, directory: RemotePath) -> None:
        """Have the server stamp an empty file, once a session: it shows us its clock.

        The file has the name of what ``op`` would stage, so ``settle`` clears it away.
        """
        if self._asked:
            return
        self._asked = True
        name = join(directory, staged_name(op))
        flags = packets.FOR_WRITING | packets.CREATED | packets.EXCLUSIVE
        try:
            async with self._channel.opened(name, flags) as handle:
                made = await self._channel.fstat(handle)
                self._clock.stamped(made.mtime or 0, time.monotonic_ns())
            await self._channel.unlink(name)
        except (NotFound, Refused):
            pass  # we may not write there, or the name has something staged


def _may_hide(entry: Entry, expected: Expected) -> bool:
    """Whether another content may stand under the token that was expected."""
    return entry.weak and entry.kind is Kind.FILE and entry.size > 0 and expected.content
