"""Moving what the server has in the place of ours to a conflict copy beside it.

This is all that a decision does on the server by itself: under a visible name, guarded by the
revision that was decided about.
"""

from __future__ import annotations

import os

from awayfs.core.errors import UsageError
from awayfs.core.records import Record, takes_name
from awayfs.core.types import ABSENT, Entry, Expected, Kind, Mismatch, NodeId
from awayfs.ports.remote import Intent
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.observe import Observer
from awayfs.volume.op_ids import aside_op
from awayfs.volume.resolve_steps import Steps
from awayfs.volume.returning import Returning
from awayfs.volume.searching import join

Place = tuple[NodeId, bytes]
ASIDE = "moving aside"
"""The stage of an intent that is a decision's, not replay's."""


class Strangers:
    """Frees names and directories for ours."""

    def __init__(self, context: Context, observer: Observer, steps: Steps, client: str) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._steps = steps
        self._client = client
        self._returning = Returning(context)

    async def settle(self, record: Record) -> None:
        """A move that was cut off is over: what it left half done on the server is put right.

        To be called before anything else is decided about the record. Replay must not take the
        intent for one of its own.
        """
        found = self._store.intents.get(record.seq)
        if found is None or found[1] != ASIDE:
            return
        await self._context.link.call(lambda remote: remote.settle(found[0]))
        self._store.intents.clear(record.seq)
        self._observer.look_again(record.node)

    async def free_directory(self, record: Record, directory: NodeId) -> str | None:
        """What stands in the place of the directory that a record works in goes aside."""
        names = self._store.server.names(directory)
        if not names:
            return None
        copy = await self.free_directory(record, names[0][0])
        path = self._store.server.path(directory)
        entry = None if copy or path is None else await self._steps.stat(path)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return copy
        above = self._store.server.path(names[0][0]) or b""
        return await self.move(record, names[0][0], above, names[0][1], entry)

    async def move(
        self, record: Record, parent: NodeId, directory: bytes, name: bytes, entry: Entry
    ) -> str:
        """Move ``entry``, which has the name on the server, aside; the name it has then."""
        listed = await self._observer.listed(parent)
        copy = self._steps.copy_name(parent, name, {e.name for e in listed})
        source, target = join(directory, name), join(directory, copy)
        expected = Expected(entry.token, entry.file_id, entry.kind)
        op = aside_op(self._client, record.seq)
        self._store.intents.set(record.seq, Intent(op, target, ABSENT, source, expected), ASIDE)
        fault("resolve.moving")
        outcome = await self._context.link.call(
            lambda remote: remote.rename(op, source, target, expected, ABSENT)
        )
        if isinstance(outcome, Mismatch):
            await self.settle(record)
            raise UsageError("the server changed at this moment; look again and decide anew")
        fault("resolve.moved")
        known = self._store.server.child(parent, name)
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            if known is not None and known not in (record.node, record.parent, record.to_parent):
                self._follow(known, (parent, name), (parent, copy))
        self._observer.committed(parent)
        self._observer.look_again(record.node)
        await self._steps.look([parent])
        return os.fsdecode(copy)

    def _follow(self, node: NodeId, old: Place, new: Place) -> None:
        """What is known of a node that went aside: here it goes along, or it is found anew."""
        nodes, server = self._store.nodes, self._store.server
        if not nodes.names(node):
            server.remove_name(*old)
            if not server.names(node):
                server.forget(node)
            return
        server.move_name(*old, *new)
        if nodes.child_id(*old) == node and nodes.child_id(*new) is None:
            nodes.move_name(*old, *new)
            for place in (old, new):
                self._context.kernel.forget_entry(*place)
        elif len(server.names(node)) > 1 and not any(
            takes_name(record, node, old) for record in self._store.journal.of_node(node)
        ):
            self._returning.again(*new)  # here the name was another's
