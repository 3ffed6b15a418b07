"""Carrying out one decision on the server.

Before the guarded operation goes out, the record is frozen and its intent is stored, in one
transaction. Staging an upload comes before that: it harms nobody, and the file may still
change under it, which is then noticed (``Torn``).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os

from msgspec import structs
from msgspec.structs import replace

from awayfs.core.decide import Apply, Facts
from awayfs.core.errors import NotFound, Refused, Unreachable
from awayfs.core.facts import mode_set_there
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import (
    ABSENT,
    Committed,
    Entry,
    Expected,
    Kind,
    Mismatch,
    NodeId,
    Outcome,
)
from awayfs.ports.remote import Crossing, Intent, Sent
from awayfs.store.intents import REFUSED
from awayfs.volume.context import Context
from awayfs.volume.displaced import Displaced
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.freezing import Freezer
from awayfs.volume.meter import Way
from awayfs.volume.op_ids import move_op, own_op
from awayfs.volume.places import Places
from awayfs.volume.puts import Load, Puts
from awayfs.volume.relinking import Relinker
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.rest import gaps_come_from
from awayfs.volume.sent_attributes import SentAttributes
from awayfs.volume.suspects import digest_soon
from awayfs.volume.together import Together
from awayfs.volume.uploading import Uploads, is_begun
from awayfs.volume.versions import Torn, Version, Versions

log = logging.getLogger(__name__)

PARTED = "they keep the content from before"


class Actor:
    """Performs ``Apply`` decisions."""

    def __init__(
        self,
        context: Context,
        fetcher: Fetcher,
        finder: FactFinder,
        client: str,
        together: Together,
    ) -> None:
        self._together = together
        self._context = context
        self._store = context.store
        self._fetcher = fetcher
        self._finder = finder
        self._client = client
        self.relinker = Relinker(context, finder, client)
        self._attributes = SentAttributes(context)
        self.freezer = Freezer(context, finder.meanwhile, together)
        self.puts = Puts(context, self.freezer, self._attributes, client, together)
        self._displaced = Displaced(context, finder.meanwhile.is_decided)
        self._uploads = Uploads(context.link, context.store.intents)
        self._versions = Versions(context)

    def op_id(self, record: Record) -> str:
        """The operation id of a record: the same at every try, unlike any other client's."""
        return own_op(self._client, record.seq)

    async def act(self, record: Record, facts: Facts, decision: Apply) -> Outcome:
        """Do it. Raises ``RemoteError``, or ``Torn``."""
        places = self._finder.places(record)
        if decision.unproven:
            await self._displaced.keep(record, facts, places)
        match record.kind:
            case RecordKind.CREATE if facts.kind is Kind.FILE:
                assert places.target is not None
                return await self._upload(record, places.target, ABSENT)
            case RecordKind.CREATE:
                return await self._make(record, places)
            case RecordKind.STORE:
                assert places.path is not None
                return await self._store_content(record, places.path, facts, decision)
            case RecordKind.LINK:
                return await self._link(record, places)
            case RecordKind.REMOVE:
                await self._save_for_readers(record.node)
                return await self._remove(record, places, decision)
            case RecordKind.RENAME | RecordKind.EXCHANGE:
                if record.kind is RecordKind.RENAME and record.replaced:
                    await self._save_for_readers(record.replaced)
                return await self._move(record, places, facts, decision)
            case RecordKind.SETATTR:
                return await self._set_attributes(record, places, decision)
            case RecordKind.SETXATTR:
                return await self._set_xattr(record, places, decision)

    async def _store_content(
        self, record: Record, path: bytes, facts: Facts, decision: Apply
    ) -> Outcome:
        """Upload over the revision that was decided on; further hard links follow.

        Names that are not known are looked for before (docs/adr/0009): once the upload has begun,
        they are another file's.
        """
        unknown = await self._finder.unknown_names(record.node, facts.current)
        await self._finder.note_displaced(record, path, facts.current)
        gaps_come_from(self._context, facts, decision.expected)
        outcome = await self._upload(record, path, decision.expected, mode_set_there(facts))
        if not isinstance(outcome, Committed):
            return outcome
        if unknown:
            self._tell_parted(record.node, path, unknown)
        return Committed(await self.relinker.relink(record, path, outcome.entry))

    def _tell_parted(self, node: NodeId, path: bytes, unknown: int) -> None:
        """Names that nobody could find keep the content from before; somebody may care."""
        text = f"{unknown} other hard link(s) of it on the server were not found: {PARTED}"
        log.warning("%r: %s", path, text)
        self._context.failures.note(node, errno.ENOENT, text, self._context.now())

    async def _upload(
        self, record: Record, path: bytes, expected: Expected, mode: int | None = None
    ) -> Outcome:
        """``mode``: what it gets instead of the one that it has here."""
        self._context.opened.save_if_open(record.node)
        node = self._context.node(record.node)
        if node is None:
            raise OSError(errno.ESTALE, "nothing to send: the node is gone")
        if not self._store.content.covers(node.id, 0, node.size):
            await self._fetcher.whole_to_send(node.id)
        if self.puts.goes_at_once(record.seq, node):
            return await self.puts.send(Load(record, path, expected, mode))
        op, directory = self.op_id(record), path.rpartition(b"/")[0]
        intent = Intent(op=op, path=path, expected=expected, sent=await self._sent(record, path))
        stage = REFUSED if self._store.intents.is_refused(record.seq) else "staging"
        await self._together.do(lambda: self._store.intents.set(record.seq, intent, stage))
        fault("replay.intended")
        staged, digest, sent = await self._stage(record.seq, op, directory, node.id, mode)
        fault("replay.staged")
        full = Intent(op, path, expected, staged=staged, staged_digest=digest)
        try:
            await self.freezer.freeze(record, full, "replacing", sent)
        except Torn:
            self._uploads.forget(record.seq)
            await self._context.link.call(lambda remote: remote.discard_staged(op, directory))
            raise
        outcome = await self._context.link.call(lambda remote: remote.replace(op, path, expected))
        if isinstance(outcome, Mismatch):  # what we know, seen elsewhere, has moved (``adopt``)
            self._store.intents.set(record.seq, full, REFUSED)
        return outcome

    def resumes(self, record: Record, intent: Intent) -> bool:
        """Whether an upload that was cut off may go on: it lies where it is wanted."""
        ours = is_begun(intent) and intent.op == self.op_id(record)
        return ours and self._finder.where_now(record, intent) == intent

    async def _sent(self, record: Record, path: bytes) -> Sent | None:
        """How far an earlier try came; one that was to go elsewhere is tidied up."""
        found = self._store.intents.get(record.seq)
        if found is None or not is_begun(found[0]):
            return None
        if (found[0].op, found[0].path) == (self.op_id(record), path):
            return found[0].sent
        intent = self._finder.where_now(record, found[0])
        await self._context.link.call(lambda remote: remote.settle(intent))
        return None

    async def _stage(
        self, seq: int, op: str, directory: bytes, node_id: NodeId, mode: int | None
    ) -> tuple[Entry, bytes | None, Version]:
        """Upload to the staged name. The content's digest, where the entry has no id to know it by
        after a lost answer, and which content was there before: the file may have changed since.
        """
        self._context.opened.save_if_open(node_id)
        node = self._context.node(node_id)
        assert node is not None
        fd = self._store.content.open(node_id)
        try:
            before, path = self._versions.of(node_id, fd), self._store.content.fd_path(node_id)

            async def still_same() -> None:
                if self._versions.of(node_id) != before:
                    self._uploads.forget(seq)
                    await self._context.link.call(lambda r: r.discard_staged(op, directory))
                    raise Torn

            begun = await self._uploads.begin(seq, path, fd, node.size, still_same)
            attributes = self._attributes.new(
                node if mode is None else structs.replace(node, mode=mode)
            )
            given = node.size, attributes, *((begun.length, begun.token) if begun else ())
            with self._context.link.meter.moving(Way.UP) as moved:
                staged = await self._context.link.call(lambda r: r.stage(op, directory, fd, *given))
                moved.bytes = node.size - (begun.length if begun else 0)
            digest = begun.digest if begun else None
            if staged.file_id is not None:
                digest = None
            elif digest is None:
                digest = await digest_soon(path, node.size, fd)
        finally:
            os.close(fd)
        return staged, digest, before

    async def _save_for_readers(self, node: NodeId) -> None:
        """Who has a file open reads on after it is removed: what is not here would go with it."""
        if len(self._store.server.names(node)) > 1:
            return
        try:
            await self._fetcher.whole_while_open(node)
        except OSError as error:
            if not self._context.link.usable:
                raise Unreachable(str(error)) from error
            log.warning("node %d is removed while it is open and partly here: %s", node, error)

    async def complete(self, record: Record, facts: Facts, entry: Entry | None) -> Entry | None:
        """What remains to be done where the content, or the object, stands there already.

        Other names of a file follow it (``relinking``), and so does its time: that the same bytes
        were written again is a change of ours too. What an earlier try of this record made may
        have been cut off before it got its mode.
        """
        places = self._finder.places(record)
        path = places.path if record.kind is RecordKind.STORE else places.target
        if (
            entry is None
            or path is None
            or record.kind not in (RecordKind.STORE, RecordKind.CREATE)
        ):
            return entry
        if record.kind is RecordKind.STORE:
            entry = await self.relinker.relink(record, path, entry) or entry
        wanted = self._attributes.unlike(record, facts, entry)
        if not wanted:
            return entry
        content = entry.kind is Kind.FILE  # what somebody wrote since keeps its own time
        expected = Expected(entry.token, entry.file_id, entry.kind, content=content)
        outcome = await self._context.link.call(
            lambda remote: remote.set_attributes(path, wanted, expected)
        )
        return outcome.entry if isinstance(outcome, Committed) else entry

    async def _make(self, record: Record, places: Places) -> Outcome:
        node = self._context.node(record.node)
        target = places.target
        assert node is not None and target is not None
        op = self.op_id(record)
        await self.freezer.freeze(record, Intent(op=op, path=target, expected=ABSENT), "making")
        return await self._context.link.call(
            lambda remote: remote.make(
                op, target, node.kind, self._attributes.new(node), node.target or b"", node.rdev
            )
        )

    async def _link(self, record: Record, places: Places) -> Outcome:
        source, target = places.path, places.target
        assert source is not None and target is not None
        op = self.op_id(record)
        await self.freezer.freeze(record, Intent(op=op, path=target, expected=ABSENT), "linking")
        return await self._context.link.call(lambda remote: remote.link(op, source, target))

    async def _remove(self, record: Record, places: Places, decision: Apply) -> Outcome:
        path = places.path
        assert path is not None
        op = self.op_id(record)
        await self.freezer.freeze(
            record, Intent(op=op, path=path, expected=decision.expected), "removing"
        )
        return await self._context.link.call(
            lambda remote: remote.remove(op, path, decision.expected)
        )

    async def _move(self, record: Record, places: Places, facts: Facts, decision: Apply) -> Outcome:
        source, target = places.path, places.target
        assert source is not None and target is not None
        op = move_op(self._client, record.seq)
        intent = Intent(
            op=op,
            path=target,
            expected=decision.target,
            other_path=source,
            other_expected=decision.expected,
            moving=facts.current,
        )
        if record.kind is RecordKind.EXCHANGE:
            return await self._exchange(record, intent, facts)
        await self.freezer.freeze(record, intent, "moving")
        return await self._context.link.call(
            lambda r: r.rename(op, source, target, decision.expected, decision.target)
        )

    async def _exchange(self, record: Record, intent: Intent, facts: Facts) -> Outcome:
        """In one step, or by taking both aside, and on from there once that is durably noted.

        Before the note they go back, after it to each other's names: two files that look alike
        would not tell which has been done.
        """
        able = self._context.link.capabilities
        in_one = able is not None and able.exchange
        begun = intent if in_one else replace(intent, crossing=Crossing.BACK)
        await self.freezer.freeze(record, begun, "moving")
        source, expected = intent.other_path, intent.other_expected
        assert source is not None and expected is not None
        outcome = await self._context.link.call(
            lambda r: r.exchange(intent.op, source, intent.path, expected, intent.expected)
        )
        if in_one or not isinstance(outcome, Committed):
            return outcome
        fault("replay.aside")
        over = replace(intent, crossing=Crossing.OVER)
        self._store.intents.set(record.seq, over, "crossing")
        work = self._store.begin_sync([])
        await asyncio.get_running_loop().run_in_executor(None, work.run)
        self._store.finish_sync(work)
        fault("replay.crossing")
        await self.settle(over)
        there = await self._context.link.find(intent.path)
        return Committed(there if there is not None and there.kind is facts.kind else None)

    async def settle(self, intent: Intent) -> None:
        """``Remote.settle``. What crosses has gone out: a refusal of that is not one of the record.

        Raises ``RemoteError``, and ``OSError`` for such a refusal.
        """
        try:
            await self._context.link.call(lambda remote: remote.settle(intent))
        except (Refused, NotFound) as error:
            if intent.crossing is not Crossing.OVER:
                raise
            raise OSError(
                errno.EBUSY, f"exchanged, but not all has its name yet: {error}"
            ) from error

    async def _set_attributes(self, record: Record, places: Places, decision: Apply) -> Outcome:
        path = places.path
        assert path is not None
        wanted = self._attributes.possible(decision.attributes or record.attributes)
        intent = Intent(op=self.op_id(record), path=path, expected=decision.expected)
        await self.freezer.freeze(record, intent, "setting")
        return await self._context.link.call(
            lambda remote: remote.set_attributes(path, wanted, decision.expected)
        )

    async def _set_xattr(self, record: Record, places: Places, decision: Apply) -> Outcome:
        path, name, value = places.path, record.xattr_name, record.xattr_value
        assert path is not None
        intent = Intent(op=self.op_id(record), path=path, expected=decision.expected)
        await self.freezer.freeze(record, intent, "setting")
        return await self._context.link.call(
            lambda remote: remote.set_xattr(path, name, value, decision.expected)
        )
