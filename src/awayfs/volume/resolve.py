"""Deciding a conflict: ``awayfs resolve --keep local|server|both``.

A decision never acts on the server by itself (but for moving a stranger out of the way under
a visible name). It changes what the journal says: *local* makes what stands on the server now
the base of the parked record and lets it go out, guarded by exactly that revision; *server*
drops the local change and adopts; *both* first gives the local variant a name of its own. If
the server moves on before the record is out, the conflict is found anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.giving_up import GivingUp
from awayfs.volume.journaling import Journaling
from awayfs.volume.observe import Observer
from awayfs.volume.removing import Remover
from awayfs.volume.resolve_both import KeepBoth
from awayfs.volume.resolve_content import TakeContent
from awayfs.volume.resolve_exchange import KeepExchange
from awayfs.volume.resolve_local import KeepLocal
from awayfs.volume.resolve_partial import KeepKnown
from awayfs.volume.resolve_server import KeepServer
from awayfs.volume.resolve_steps import Steps
from awayfs.volume.resolve_strangers import Strangers

NOWHERE = (
    "the directory that it was in is gone here, or another has its name by now;"
    " use --keep server, and remove with rm what the server has, where that is shown"
)


class Resolver:
    """Carries decisions out. Most need the server: what it has at that moment is decided on."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        journaling: Journaling,
        changes: Changes,
        fetcher: Fetcher,
        client: str,
    ) -> None:
        self._context = context
        self._store = context.store
        self._changes = changes
        self._remover = Remover(context)
        giving_up = GivingUp(context, changes)
        self.steps = steps = Steps(context, observer)
        self.strangers = strangers = Strangers(context, observer, steps, client)
        self._local = KeepLocal(context, journaling, giving_up, steps, strangers)
        self.content = TakeContent(context, journaling, self._local)
        self._server = KeepServer(context, observer, giving_up, steps)
        self._known = KeepKnown(context, journaling, changes, fetcher, self._server, steps)
        self._exchange = KeepExchange(
            context, observer, journaling, giving_up, steps, self._local, self._known
        )
        self._both = KeepBoth(
            context, observer, journaling, changes, steps, strangers, self._local, self._server
        )

    async def resolve(
        self, conflict: Conflict, keep: Resolution, saving: Callable[[], object] = lambda: None
    ) -> str | None:
        """Decide one conflict; the path of a conflict copy, if one was made.

        ``saving`` is called in the transaction that drops our content for the server's, and
        before what came back is removed again; what it raises keeps that from being done.

        Raises ``RemoteError`` when the server cannot be asked and ``UsageError`` when the
        choice makes no sense for this conflict.
        """
        records = [
            record
            for seq in conflict.record_seqs
            if (record := self._store.journal.get(seq)) is not None
        ]
        copy: str | None = None
        if conflict.kind == ConflictKind.REMOVE_UPDATE and not records:
            self._resolve_removed(conflict, keep, saving)
        elif not records:
            pass  # settled by other means since
        elif _is_of_two(conflict, records[0], keep):
            copy = await self._exchange.keep(records[0], keep)
        elif keep is Resolution.SERVER:
            copy = await self._server.keep(conflict, records[0], saving)
        elif await self._known.is_needed(conflict, records[0]):
            copy = await self._known.keep(conflict, records[0], keep)
        elif keep is Resolution.LOCAL:
            copy = await self._local.keep(conflict, records[0])
        else:
            copy = await self._both.keep(conflict, records[0])
        self._decided(conflict)
        return copy

    async def base_attributes(self, conflict: Conflict) -> None:
        """Decide an attribute conflict for what was there before both changes."""
        records = [self._store.journal.get(seq) for seq in conflict.record_seqs]
        for record in filter(None, records):
            await self._local.base_attributes(conflict, record)
        self._decided(conflict)

    def _saves(self, record: Record) -> bool:
        """Whether what a record renames was made only to be saved over another file."""
        return record.seq in self._store.saves

    async def take(
        self,
        conflict: Conflict,
        record: Record | None,
        staged: str,
        seen: Entry | None,
        digest: bytes | None,
        unchanged: Callable[[], object],
        *,
        is_base: bool,
    ) -> None:
        """Decide for a content (``resolve_content``).

        The base is what was there before both changes: a rename over another file is taken back for
        it, unless what was renamed was made only to be saved over that one.
        """
        over = record is not None and record.kind is RecordKind.RENAME and record.replaced
        if is_base and over and record is not None and seen is not None and not self._saves(record):
            then = partial(self.content.to_displaced, conflict, record, staged, seen, digest)
            await self._server.undo_rename(conflict, record, unchanged, then)
        else:
            unchanged()
            self.content.take(conflict, record, staged, seen, digest)
        self.ended(conflict)

    def _decided(self, conflict: Conflict) -> None:
        fault("resolve.decided")
        with self._store.transaction():
            self._store.conflicts.remove(conflict.id)
        self.ended(conflict)

    def ended(self, conflict: Conflict) -> None:
        """A conflict was decided, and is gone: tell all whom it concerns."""
        self._context.kernel.forget_node(conflict.node)
        self._context.failures.clear(conflict.node)
        self._changes.discard_if_unused(conflict.node)
        for node in (conflict.node, conflict.parent):
            self._remover.let_go_above(node)
        self._context.on_journal()

    def _names_meant(self, conflict: Conflict) -> list[tuple[NodeId, bytes]]:
        """The names that the removal was about: of several that a file has, that one alone."""
        names = self._store.nodes.names(conflict.node)
        if len(names) < 2:
            return names
        meant = [name for name in names if name == (conflict.parent, conflict.name)]
        if not meant:
            raise UsageError("it has several names by now; remove with rm the one that is meant")
        return meant

    def _resolve_removed(
        self, conflict: Conflict, keep: Resolution, saving: Callable[[], object]
    ) -> None:
        """The server's version is back already; *local* removes it, as it is now, again."""
        if keep is not Resolution.LOCAL:
            return
        if self._store.nodes.path(conflict.node) is None:
            raise UsageError(NOWHERE)
        saving()
        for parent, name in self._names_meant(conflict):
            node = self._store.nodes.get(conflict.node)
            if node is None or node.kind is not Kind.DIRECTORY:
                self._changes.unlink(parent, name)
            elif self._store.nodes.has_children(node.id):
                raise UsageError(
                    "the directory holds files of the server's; remove them with rm -r"
                )
            else:  # what made it stay went by a decision of its own
                self._changes.rmdir(parent, name)
            self._context.kernel.forget_entry(parent, name)


def _is_of_two(conflict: Conflict, record: Record, keep: Resolution) -> bool:
    """Whether two nodes are to be decided about; to try a refused exchange again, none is."""
    is_refused = conflict.kind == ConflictKind.REFUSED
    return record.kind is RecordKind.EXCHANGE and (keep is Resolution.SERVER or not is_refused)
