"""Making a file's other names anew: an upload replaces the file under one name, and parts the rest.

A name follows the upload where it still shows what the upload displaced. That is the revision
that the upload required (its intent has it), and not always the base: an operation of ours whose
answer was lost may have made it, a changed time for one. Where the server has no ids, a token
under which something else may hide is taken for nobody's: the content is compared.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from awayfs.core.errors import NotFound
from awayfs.core.records import Record
from awayfs.core.types import Entry, Expected, Kind, Mismatch
from awayfs.ports.remote import Intent
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.observe import join
from awayfs.volume.op_ids import link_op, own_op
from awayfs.volume.replay_facts import FactFinder

log = logging.getLogger(__name__)

RELINKING = "relinking"
"""The stage of an upload that is in place while other names of the file are made anew."""


@dataclass(frozen=True, slots=True)
class _Old:
    """What a name shows that has not followed yet: the base, or what the upload displaced."""

    base: ServerNode
    displaced: Expected

    def may_be(self, there: Entry) -> bool:
        """Whether ``there`` is it, as far as its id, or its token, tells."""
        if there.kind is not Kind.FILE:
            return False
        if self.base.file_id is not None:
            return there.file_id in (self.base.file_id, self.displaced.file_id)
        return there.token in (self.base.token, self.displaced.token)

    def is_proved(self, there: Entry) -> bool:
        """Whether nothing else may hide under what ``there`` was known by."""
        return there.file_id is not None or not (there.weak or self.base.weak)


class Relinker:
    """Has the names of a file that are known here follow an upload under one of them."""

    def __init__(self, context: Context, finder: FactFinder, client: str) -> None:
        self._context = context
        self._store = context.store
        self._finder = finder
        self._client = client

    async def relink(self, record: Record, path: bytes, entry: Entry | None) -> Entry | None:
        """Make anew what still shows the old revision: it is removed, guarded, and linked.

        A name that is gone is linked where an earlier try may have removed it; one that somebody
        else removed or changed is left. The entry after all of it.
        """
        base = self._store.server.get(record.node)
        others = self._store.server.names(record.node)
        if base is None or entry is None or len(others) < 2:
            return entry
        displaced, cut_off = self._begin(record, path, entry)
        for parent, name in others:
            directory = self._store.server.path(parent)
            if directory is None:
                continue
            other = join(directory, name)
            if other == path:
                continue
            op = link_op(self._client, record.seq, parent, name)
            if cut_off:
                await self._settle(Intent(op=op, path=other, expected=displaced))
            await self._relink_one(op, path, other, _Old(base, displaced), cut_off)
        return await self._context.link.call(lambda remote: remote.stat(path))

    def _begin(self, record: Record, path: bytes, entry: Entry) -> tuple[Expected, bool]:
        """Have it on record that names are being made anew.

        What the upload displaced, and whether an earlier try to make names anew was cut off.
        """
        found = self._store.intents.get(record.seq)
        if found is not None and found[1] == RELINKING:
            return found[0].expected, True
        own = own_op(self._client, record.seq)
        there = Expected(entry.token, entry.file_id)
        intent = found[0] if found else Intent(op=own, path=path, expected=there)
        self._store.intents.set(record.seq, intent, RELINKING)
        return intent.expected, False

    async def _settle(self, intent: Intent) -> None:
        await self._context.link.call(lambda remote: remote.settle(intent))

    async def _relink_one(
        self, op: str, path: bytes, other: bytes, old: _Old, cut_off: bool
    ) -> None:
        call = self._context.link.call
        try:
            there = await self._old_at(other, old)
        except NotFound:
            if cut_off:
                await self._link_again(op, path, other)
            return
        if there is None:
            return
        expected = Expected(there.token, there.file_id, there.kind)
        removed = await call(lambda remote: remote.remove(op, other, expected))
        if not isinstance(removed, Mismatch):
            fault("replay.relinking")
            await self._link_again(op, path, other)
            fault("replay.relinked")

    async def _old_at(self, other: bytes, old: _Old) -> Entry | None:
        """What a name shows, if it is the old revision; None if it is something else."""
        call = self._context.link.call
        there = await call(lambda remote: remote.stat(other))
        if not old.may_be(there):
            return None
        known = None if old.is_proved(there) else await self._finder.base_digest(old.base)
        if known is None:
            return there
        seen = await call(lambda remote: remote.digest(other))
        return seen.entry if seen.blake2b == known and old.may_be(seen.entry) else None

    async def _link_again(self, op: str, path: bytes, other: bytes) -> None:
        """A name whose directory went on the server meanwhile went with it."""
        try:
            await self._context.link.call(lambda remote: remote.link(op, path, other))
        except NotFound:
            log.info("no directory is left for the name %r", other)
