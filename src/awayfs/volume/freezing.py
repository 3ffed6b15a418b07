"""Records that go out: never merged with later changes any more, and what they want is on record.

The intent is stored in the same transaction, so a daemon that dies afterwards knows what to settle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.ports.remote import Intent
from awayfs.volume.context import Context
from awayfs.volume.decided_meanwhile import DecidedMeanwhile
from awayfs.volume.fault import fault
from awayfs.volume.journaling import Journaling
from awayfs.volume.together import Together
from awayfs.volume.versions import Torn, Version, Versions

CONTENT = (RecordKind.STORE, RecordKind.CREATE)


class Freezer:
    """Freezes them, and takes it back for those that did nothing."""

    def __init__(self, context: Context, meanwhile: DecidedMeanwhile, together: Together) -> None:
        self._context = context
        self._store = context.store
        self._meanwhile = meanwhile
        self._together = together
        self._journaling = Journaling(context)
        self._versions = Versions(context)

    async def freeze(
        self, record: Record, intent: Intent, stage: str, sent: Version | None = None
    ) -> None:
        """The record goes out now. ``Torn`` when the content is not the one that was ``sent``."""

        def step() -> None:
            if sent is not None and self._versions.of(record.node) != sent:
                raise Torn
            self.require(record)
            self.freeze_all([(record, intent)], stage)

        await self._together.do(step)
        fault("replay.frozen")

    def require(self, record: Record) -> None:
        """Raises ``Torn`` where a record is gone, or a decision has made something else of it."""
        if self._store.journal.get(record.seq) is None or self._meanwhile.is_decided(record):
            raise Torn

    def freeze_all(self, going: Sequence[tuple[Record, Intent]], stage: str) -> None:
        """These go out now, as ``require`` let them. Within a step (``Together``)."""
        with self._store.transaction():
            self._store.intents.set_all({record.seq: intent for record, intent in going}, stage)
            records = [one for record, _ in going for one in (record, *self._stores(record))]
            self._set_states(records, RecordState.FROZEN)
            for record, _ in going:
                self._follow_mapped(record)

    def _set_states(self, records: Iterable[Record], state: RecordState) -> None:
        self._store.journal.set_states((one.seq for one in records), state)

    def thaw(self, record: Record) -> None:
        """What went out unseen found the server changed, and did nothing, which is settled."""
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._set_states((record, *self.carried(record)), RecordState.PENDING)

    def freeze_as_sent(self, record: Record, before: Version) -> None:
        """What stands on the server is found to be what is here; what follows is new.

        ``before`` is the content that was compared. ``Torn`` when it has changed since: the
        record then still stands for what the server does not have.
        """
        if record.kind not in CONTENT:
            return
        known = self._store.journal.get(record.seq)
        if known is None or known.state is RecordState.FROZEN:
            return
        if self._versions.of(record.node) != before:
            raise Torn
        with self._store.transaction():
            self._set_states((record, *self._stores(record)), RecordState.FROZEN)
            self._follow_mapped(record)

    def _follow_mapped(self, record: Record) -> None:
        """What a program writes through a mapping is not seen: another record tells of it.

        It is there before anything is sent, so that a daemon that dies leaves it.
        """
        if record.kind not in CONTENT:
            return
        opened = self._context.opened.get(record.node)
        if opened is not None and opened.mappers and self._store.nodes.names(record.node):
            self._journaling.store(record.node)

    def carried(self, record: Record) -> list[Record]:
        """Records that the upload of a CREATE settles along with it: the stores until then.

        They were frozen with it. A later one is about a write that came while it was away.
        """
        return [one for one in self._stores(record) if one.state is RecordState.FROZEN]

    def _stores(self, record: Record) -> list[Record]:
        """The stores that go out with a CREATE."""
        if record.kind is not RecordKind.CREATE:
            return []
        return [
            other
            for other in self._store.journal.of_node(record.node)
            if other.kind is RecordKind.STORE and other.state is not RecordState.PARKED
        ]
