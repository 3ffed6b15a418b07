"""Records that a decision made something else of while they were on their way.

Who keeps what is here of a directory that was lost has all in it made anew, edits that were sent
a moment ago included: whether they arrived says nothing of what is there by then. So what came back
is looked at before it is noted, and before anything else is sent.
"""

from __future__ import annotations

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ROOT, NodeId
from awayfs.store.store import Store
from awayfs.volume.places import MOVING

BRINGING = (RecordKind.CREATE, RecordKind.LINK, *MOVING)


class DecidedMeanwhile:
    """Tells them, and lets them go out anew."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_decided(self, record: Record) -> bool:
        """Whether a record, as it was sent, is another by now, was given up with its node, or
        brought something into a directory that is to be made anew itself.
        """
        known = self._store.journal.get(record.seq)
        if known is None:
            return self._store.nodes.get(record.node) is None
        into = record.to_parent if record.kind in MOVING else record.parent
        anew = record.kind in BRINGING and self._is_made_anew(into)
        return anew or (known.kind, known.node) != (record.kind, record.node)

    def _is_made_anew(self, directory: NodeId) -> bool:
        """One that is gone, and is not, is a matter of its own: a conflict."""
        if directory == ROOT or self._store.server.path(directory) is not None:
            return False
        return any(r.kind is RecordKind.CREATE for r in self._store.journal.of_node(directory))

    def again(self, record: Record) -> bool:
        """Whether that is so; then what was decided goes out, as nothing of it was sent yet.

        What the operation left half done must be settled, or its outcome be known.
        """
        if not self.is_decided(record):
            return False
        journal = self._store.journal
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            for one in journal.of_node(record.node):
                with_it = one.kind is RecordKind.STORE and one.state is RecordState.FROZEN
                if one.seq == record.seq or with_it:
                    journal.set_state(one.seq, RecordState.PENDING)
        return True
