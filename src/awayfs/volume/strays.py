"""Staged files that nobody needs any more: found in listings, and removed.

A session that was frozen may wake up when its work was done again by another one, and still
make the staged file that it was asked for. Only files staged by this client are looked at, and
only those whose operation is settled: no record of the journal has it for its own.

What a move had staged, or any operation set aside, when it was cut off, in a directory that
somebody else then moved to where nobody looked, may be the only name of a file. It is removed only
where the same content stands beside it or has other names; else it gets a name that is seen: its
own, where a session that woke up has just taken that from it, for what was done again. Of
one operation there may be both.
"""

from __future__ import annotations

import logging

from awayfs.core.errors import RemoteError
from awayfs.core.types import ABSENT, ROOT, Entry, Expected, Kind, Mismatch, OpId, RemotePath
from awayfs.ports.remote import ASIDE_SUFFIX, STAGED_PREFIX, STAGED_SUFFIX, Listing
from awayfs.remotes.names import conflict_name, is_own
from awayfs.volume.context import Context
from awayfs.volume.op_ids import is_move, naming_op, record_of

log = logging.getLogger(__name__)

RECOVERED = b"recovered"


class Strays:
    """Sifts listings. ``client`` is the beginning of every operation id of ours."""

    def __init__(self, context: Context, client: str) -> None:
        self._context = context
        self._client = client
        self._prefix = STAGED_PREFIX + client.encode("ascii")

    async def listed(self, path: RemotePath) -> list[Entry]:
        """A directory's entries, without what we staged; raises ``RemoteError``."""
        entries = await self._context.link.call(lambda remote: remote.list(path))
        return await self._sifted(path, entries)

    async def listed_unless(self, path: RemotePath, fingerprint: bytes) -> Listing:
        """As ``listed``, without entries where they are as they were; no fingerprint where there
        is something that we staged, which may have to be reaped the next time.
        """
        found = await self._context.link.call(lambda remote: remote.list_unless(path, fingerprint))
        if found.entries is None:
            return found
        sifted = await self._sifted(path, found.entries)
        return found if sifted is found.entries else Listing(b"", b"", sifted)

    async def _sifted(self, path: RemotePath, entries: list[Entry]) -> list[Entry]:
        staged = [entry for entry in entries if self._is_ours(entry.name)]
        if not staged:
            return entries
        others = [entry for entry in entries if not self._is_ours(entry.name)]
        return others + await self._reap(path, staged, others)

    def _is_ours(self, name: bytes) -> bool:
        return name.startswith(self._prefix) and is_own(name)

    async def _reap(
        self, path: RemotePath, staged: list[Entry], others: list[Entry]
    ) -> list[Entry]:
        """What is nobody's goes; what may have no other name gets one, and is the answer."""
        named: list[Entry] = []
        for entry in staged:
            op = entry.name[len(STAGED_PREFIX) : -len(STAGED_SUFFIX)].decode("ascii")
            aside = entry.name.endswith(ASIDE_SUFFIX)
            theirs = aside or is_move(op, self._client)
            if self._is_wanted(op) or not (theirs or entry.kind is Kind.FILE):
                continue
            try:
                if theirs:
                    named += await self._sort_out(path, entry.name, op, others + named)
                else:
                    await self._discard(path, entry, op)
            except RemoteError as error:
                log.warning("%r stays: %s", entry.name, error)
        return named

    async def _sort_out(
        self, path: RemotePath, name: bytes, op: OpId, others: list[Entry]
    ) -> list[Entry]:
        """Somebody's revision: it goes if it is there under another name, else it gets one.

        It is looked at anew: what went just now may have been that other name.
        """
        entry = await self._context.link.find(_join(path, name))
        if entry is None:
            return []
        if await self._is_twice(path, entry, others):
            await self._discard(path, entry, op)
            return []
        return await self._name(path, entry, op, {other.name for other in others})

    async def _discard(self, path: RemotePath, entry: Entry, op: OpId) -> None:
        """Remove a name that nobody needs; of what was set aside only this very revision."""
        log.info("reaping %r, left by a session that was given up", entry.name)
        call = self._context.link.call
        if not entry.name.endswith(ASIDE_SUFFIX):
            await call(lambda remote: remote.discard_staged(op, path))
            return
        place, naming = _join(path, entry.name), naming_op(self._client, op)
        expected = Expected(entry.token, entry.file_id, entry.kind)
        if isinstance(await call(lambda r: r.remove(naming, place, expected)), Mismatch):
            log.warning("%r stays: it changed", entry.name)

    async def _is_twice(self, path: RemotePath, entry: Entry, others: list[Entry]) -> bool:
        """Whether what is staged stands under another name as well."""
        if entry.kind is Kind.DIRECTORY:
            return False
        if entry.file_id is not None:
            return entry.nlink > 1
        for other in others:
            if (other.kind, other.token) != (entry.kind, entry.token):
                continue
            if entry.kind is not Kind.FILE:
                return other.target == entry.target
            if await self._digest(path, entry) == await self._digest(path, other):
                return True
        return False

    async def _digest(self, path: RemotePath, entry: Entry) -> bytes:
        place = _join(path, entry.name)
        return (await self._context.link.call(lambda remote: remote.digest(place))).blake2b

    async def _name(
        self, path: RemotePath, entry: Entry, op: OpId, taken: set[bytes]
    ) -> list[Entry]:
        """Give it a name that is free; the entry as it is listed then, none if it stays."""
        expected = Expected(entry.token, entry.file_id, entry.kind)
        names = (conflict_name(RECOVERED, op, attempt) for attempt in range(len(taken) + 1))
        name = self._own_name(path, entry, taken)
        if name is None:
            name = next(name for name in names if name not in taken)
        source, target = _join(path, entry.name), _join(path, name)
        naming = naming_op(self._client, op)
        outcome = await self._context.link.call(
            lambda remote: remote.rename(naming, source, target, expected, ABSENT)
        )
        if isinstance(outcome, Mismatch):
            log.warning("%r stays: it changed, or %r is taken", entry.name, name)
            return []
        log.warning("%r had no other name: it is %r now", entry.name, name)
        return [await self._context.link.call(lambda remote: remote.stat(target))]

    def _own_name(self, path: RemotePath, entry: Entry, taken: set[bytes]) -> bytes | None:
        """The name in this directory that it was last seen under, if nothing stands there now."""
        server, at = self._context.store.server, ROOT
        for part in path.split(b"/") if path else ():
            below = server.child(at, part)
            if below is None:
                return None
            at = below
        found = [
            name
            for name, seen in server.children_seen(at)
            if name not in taken and _is_it(seen.entry(), entry)
        ]
        return found[0] if len(found) == 1 else None

    def _is_wanted(self, op: OpId) -> bool:
        """Whether the record of an operation is still to be sent, and will settle it."""
        seq = record_of(op, self._client)
        return seq is not None and self._context.store.journal.get(seq) is not None


def _is_it(seen: Entry, entry: Entry) -> bool:
    """The same revision; a move gives it another change time."""
    if seen.file_id is not None and entry.file_id is not None:
        return (seen.file_id, seen.size, seen.mtime_ns) == (
            entry.file_id, entry.size, entry.mtime_ns
        )  # fmt: skip
    return (seen.kind, seen.token) == (entry.kind, entry.token)


def _join(directory: RemotePath, name: bytes) -> RemotePath:
    return directory + b"/" + name if directory else name
