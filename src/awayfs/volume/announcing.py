"""Telling programs what happens: from what the parts of a volume note to events (``core.events``).

Nothing here decides anything. Modes, conflicts and refused changes are told each; what can come by
the thousand (reads of what is not here) is told sparingly, with the number of those left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from awayfs.core.conflicts import ConflictKind
from awayfs.core.events import EventKind, Sparing
from awayfs.core.modes import ModeState, asks_server
from awayfs.core.types import ROOT, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.hoard import Hoard, Walk

FAILURES_MOST = 20
FAILURES_WINDOW_NS = 60 * SECOND_NS


class _Known(Struct, frozen=True):
    """A conflict that was told of, or was there at the start."""

    kind: str
    path: bytes


class Announcer:
    """Hears of changes on the event loop, and puts them into ``Context.events``."""

    def __init__(self, context: Context, hoard: Hoard) -> None:
        self._context = context
        self._store = context.store
        self._hoard = hoard
        self._known: dict[NodeId, dict[int, _Known]] = {}
        self._tried: dict[NodeId, list[tuple[int, _Known]]] = {}
        self._failures = Sparing(FAILURES_MOST, FAILURES_WINDOW_NS)
        for place in self._store.conflicts.places():
            known = _Known(place.kind, self._joined(place.parent, place.name))
            self._known.setdefault(place.node, {})[place.id] = known
        self._store.conflicts.on_change.append(self._conflicts_changed)
        context.on_fetch_failed = self._fetch_failed
        hoard.on_walked = self._walked

    def mode_changed(self, old: ModeState, new: ModeState) -> None:
        """The link says what became of the volume, and why."""
        by_hand = new.by_hand
        text = f"{old.mode} -> {new.mode}"
        if new.cause:
            text += f": {new.cause}"
        self._context.tell(
            EventKind.MODE, text, mode=str(new.mode), was=str(old.mode), by_hand=by_hand
        )
        if asks_server(old.mode) and not asks_server(new.mode):
            self._context.spawn(self._look_at_pins())

    async def _look_at_pins(self) -> None:
        """Offline now: is all here that was to be here?"""
        for pin in self._store.pins.all():
            missing = len((await self._hoard.check(pin.node)).missing)
            if missing:
                text = f"pinned, and not all here: {missing} missing"
                self._context.tell(EventKind.PINS_INCOMPLETE, text, pin.node, missing=missing)

    # -- conflicts --------------------------------------------------------------------------

    def trying_again(self, node: NodeId) -> None:
        """Refusals of a node are set aside; they are over only if they do not come again."""
        self._tried.setdefault(node, [])

    def tried_again(self, node: NodeId) -> None:
        """What was tried has gone out, or is refused again."""
        for number, known in self._tried.pop(node, []):
            self._resolved(number, known)

    def _conflicts_changed(self, node: NodeId) -> None:
        """After a commit: what is new, and what is gone.

        A conflict that is found again by a further attempt bears another number, and is the same.
        """
        now = {conflict.id: conflict for conflict in self._store.conflicts.of_node(node)}
        known = self._known.pop(node, {})
        gone = {number: one for number, one in known.items() if number not in now}
        tried = self._tried.get(node)
        if tried is not None:
            gone = dict(tried) | gone
            tried.clear()
        kept = {number: one for number, one in known.items() if number in now}
        for number, conflict in now.items():
            if number in kept:
                continue
            again = next((n for n, one in gone.items() if one.kind == conflict.kind), None)
            if again is not None:
                kept[number] = gone.pop(again)
            else:
                kept[number] = self._found(conflict)
        if kept:
            self._known[node] = kept
        for number, one in gone.items():
            if tried is not None and one.kind == ConflictKind.REFUSED:
                tried.append((number, one))
            elif self._store.conflicts.get(number) is None:
                self._resolved(number, one)

    def _found(self, conflict: Conflict) -> _Known:
        path = self._joined(conflict.parent, conflict.name)
        refused = conflict.kind == ConflictKind.REFUSED
        kind = EventKind.REFUSED if refused else EventKind.CONFLICT
        text = f"{conflict.kind}: {conflict.note}" if conflict.note else conflict.kind
        self._context.events.tell(
            kind, self._context.now(), text, path, conflict=conflict.id, conflict_kind=conflict.kind
        )
        return _Known(conflict.kind, path)

    def _resolved(self, number: int, known: _Known) -> None:
        text = f"{known.kind}: over"
        self._context.events.tell(
            EventKind.RESOLVED,
            self._context.now(),
            text,
            known.path,
            conflict=number,
            conflict_kind=known.kind,
        )

    def _joined(self, parent: NodeId, name: bytes) -> bytes:
        directory = self._store.nodes.path(parent) if parent else None
        return directory + b"/" + name if directory else name

    # -- content ----------------------------------------------------------------------------

    def _fetch_failed(self, node: NodeId, text: str) -> None:
        left_out = self._failures.admit(self._context.now())
        if left_out is not None:
            facts = {"left_out": left_out} if left_out else {}
            self._context.tell(EventKind.FETCH_FAILED, text, node, **facts)

    def _walked(self, starts: Sequence[NodeId], walk: Walk) -> None:
        start = starts[0] if len(starts) == 1 else ROOT
        text = f"{walk.done} files, {walk.bytes} bytes fetched, {len(walk.failed)} failed"
        self._context.tell(
            EventKind.HOARD_ENDED,
            text,
            start,
            files=walk.done,
            bytes=walk.bytes,
            failed=len(walk.failed),
        )
