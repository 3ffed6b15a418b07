"""Making a file's other names anew: an upload replaces the file under one name, and parts the rest.

A name follows the upload where it still shows what the upload displaced. That is the revision
that the upload required (its intent has it), and not always the base: an operation of ours whose
answer was lost may have made it, a changed time for one. Where the server has no ids, a token
under which something else may hide is taken for nobody's, nor is another one for somebody else's,
since the upload itself took a name from that file: the content is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.errors import NotFound
from awayfs.core.facts import Facts
from awayfs.core.records import Record, RecordKind
from awayfs.core.sameness import came_through
from awayfs.core.types import Entry, Expected, Kind, Mismatch, OpId
from awayfs.ports.remote import Intent
from awayfs.remotes.names import staged_name
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.op_ids import link_op, own_op
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.searching import join

log = logging.getLogger(__name__)

RELINKING = "relinking"
"""The stage of an upload that is in place while other names of the file are made anew."""


class _Old(Struct, frozen=True):
    """What a name shows that has not followed yet: the base, or what the upload displaced."""

    base: ServerNode
    displaced: Expected
    new: Entry

    def may_be(self, there: Entry) -> bool:
        """Whether ``there`` is it, as far as its id, or its token, tells."""
        if there.kind is not Kind.FILE:
            return False
        if there.file_id is not None:
            old = (self.base.file_id, self.displaced.file_id)
            return there.file_id in old and there.file_id != self.new.file_id
        alike = (there.size, there.mtime_ns) == (self.base.size, self.base.mtime_ns)
        return self.is_known(there) or alike

    def is_known(self, there: Entry) -> bool:
        """Whether its token is one of the old revision's: a name less may have changed that."""
        return there.token in (self.base.token, self.displaced.token)

    def is_proved(self, there: Entry) -> bool:
        """Whether nothing else may hide under what ``there`` was known by."""
        if there.file_id is not None:
            return True
        return self.is_known(there) and not (there.weak or self.base.weak)


class Relinker:
    """Has the names of a file that are known here follow an upload under one of them."""

    def __init__(self, context: Context, finder: FactFinder, client: str) -> None:
        self._context = context
        self._store = context.store
        self._finder = finder
        self._client = client

    async def relink(self, record: Record, path: bytes, entry: Entry | None) -> Entry | None:
        """Put a second name of the upload, guarded, in the place of each old one.

        A name that somebody else removed or changed is left. The entry after all of it, or as the
        upload left it where somebody changed that: what is known must not be what they wrote.
        """
        base = self._store.server.get(record.node)
        if base is None or entry is None or len(self._store.server.names(record.node)) < 2:
            return entry
        old = _Old(base, self._begin(record, path, entry).expected, entry)
        for op, other in self._others(record, path):
            try:
                await self._relink_one(op, path, other, old)
            except NotFound:
                log.info("the name %r is gone on the server", other)
        after = await self._context.link.find(path)
        return after if after is not None and _is_still_it(entry, after) else entry

    async def follow_earlier(self, record: Record, intent: Intent) -> None:
        """Have the names follow an upload that came through by one which is not gone by any more.

        Else the next try takes what that one shows for somebody else's. A name that is changed
        there stays as it is, and the next try, if it goes by that, finds it changed.
        """
        path = self._finder.places(record).path
        if record.kind is not RecordKind.STORE or intent.path == path:
            return
        known = intent.path in (other for _, other in self._others(record, path or b""))
        if known and not self._finder.meanwhile.is_decided(record):
            there = await self._context.link.find(intent.path)
            if there is not None and await self._came_through(record, intent, there):
                with suppress(NotFound):
                    await self.relink(record, intent.path, there)

    async def _came_through(self, record: Record, intent: Intent, there: Entry) -> bool:
        base = self._store.server.get(record.node)
        facts = Facts(
            record,
            Kind.FILE,
            base=base.entry() if base else None,
            ours=intent.staged,
            ours_digest=intent.staged_digest,
            retried=True,
        )
        told = came_through(facts, there, None)
        if told is None:
            seen = await self._context.link.call(lambda remote: remote.digest(intent.path))
            told = came_through(facts, seen.entry, seen.blake2b)
        return bool(told)

    async def settle(self, record: Record, intent: Intent, stage: str) -> None:
        """Tidy up after names that were being made anew; ``intent`` is the upload's."""
        if stage != RELINKING:
            return
        for op, other in self._others(record, intent.path):
            await self._settle_one(replace(intent, op=op, path=other))

    async def _settle_one(self, intent: Intent) -> None:
        await self._context.link.call(lambda remote: remote.settle(intent))

    def _others(self, record: Record, path: bytes) -> Iterator[tuple[OpId, bytes]]:
        """The other names of a file, as paths, each with its operation."""
        for parent, name in self._store.server.names(record.node):
            directory = self._store.server.path(parent)
            if directory is not None and (other := join(directory, name)) != path:
                yield link_op(self._client, record.seq, parent, name), other

    def _begin(self, record: Record, path: bytes, entry: Entry) -> Intent:
        """Have it on record that names are being made anew; what the upload intended."""
        found = self._store.intents.get(record.seq)
        there = Expected(entry.token, entry.file_id)
        intent = found[0] if found else Intent(own_op(self._client, record.seq), path, there)
        if intent.staged is None:
            intent = replace(intent, staged=entry)
        self._store.intents.set(record.seq, intent, RELINKING)
        return intent

    async def _relink_one(self, op: OpId, path: bytes, other: bytes, old: _Old) -> None:
        """Raises ``NotFound`` when the name is gone, with its directory perhaps."""
        call = self._context.link.call
        there = await self._old_at(other, old)
        if there is None:
            return
        directory = other.rpartition(b"/")[0]
        await call(lambda remote: remote.discard_staged(op, directory))
        made = await call(lambda remote: remote.link(op, path, join(directory, staged_name(op))))
        if isinstance(made, Mismatch):
            return
        fault("replay.relinking")
        expected = Expected(there.token, there.file_id, there.kind)
        outcome = await call(lambda remote: remote.replace(op, other, expected))
        if isinstance(outcome, Mismatch):
            await call(lambda remote: remote.discard_staged(op, directory))
        fault("replay.relinked")

    async def _old_at(self, other: bytes, old: _Old) -> Entry | None:
        """What a name shows, if it is the old revision; None if it is something else."""
        call = self._context.link.call
        there = await call(lambda remote: remote.stat(other))
        if not old.may_be(there):
            return None
        known = None if old.is_proved(there) else await self._finder.base_digest(old.base)
        if known is None:
            return there if old.is_proved(there) or old.is_known(there) else None
        seen = await call(lambda remote: remote.digest(other))
        return seen.entry if seen.blake2b == known and old.may_be(seen.entry) else None


def _is_still_it(before: Entry, after: Entry) -> bool:
    """Whether a file is what it was, but for how many names it has, and holds what it held."""
    shown = [(e.kind, e.file_id, e.size, e.mtime_ns) for e in (before, after)]
    return shown[0] == shown[1]
