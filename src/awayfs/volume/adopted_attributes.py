"""What a program sees of the attributes that the server shows."""

from __future__ import annotations

from typing import Any

from awayfs.core.diff import Content
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.volume.context import Context


class AdoptedAttributes:
    """Takes them over, except those that were set here."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._nodes = context.store.nodes
        self._journal = context.store.journal

    def show(
        self, node: NodeId, entry: Entry, dirty: frozenset[str], content: Content | None = None
    ) -> None:
        """The attributes that a program sees, except those that were set here."""
        uid, gid = self._context.local_owner(entry)
        values: dict[str, Any] = {
            "mode": entry.mode,
            "uid": uid,
            "gid": gid,
            "mtime_ns": entry.mtime_ns,
        }
        if entry.kind is not Kind.DIRECTORY:
            values["size"] = entry.size
            values["target"] = entry.target
            if content is not Content.CHANGED and self._lost_only_its_fraction(node, entry):
                values.pop("mtime_ns")
        elif self._journal.works_in(node):
            values.pop("mtime_ns")  # entries made here are newer than what the server shows
        if entry.ctime_ns is not None:
            values["ctime_ns"] = entry.ctime_ns
        values = {key: value for key, value in values.items() if key not in dirty}
        opened = self._context.opened.get(node)
        if opened is not None and (opened.unsaved or opened.passthrough or opened.mappable):
            values.pop("size", None)
        self._nodes.update(node, **values)
        if opened is not None and "mtime_ns" in values:
            opened.mtime_ns = entry.mtime_ns

    def directory_time(self, node: NodeId, entry: Entry) -> None:
        """A directory's time here is that of the last change here, until all went out.

        What the replay of its entries made of it was the base all the while, so that it shows
        as no change when it is seen again.
        """
        local, capabilities = self._nodes.get(node), self._context.link.capabilities
        grain = max(capabilities.time_granularity_ns, 1) if capabilities else 1
        if local is None or entry.mtime_ns in (local.mtime_ns, local.mtime_ns // grain * grain):
            return  # but for what the server cannot hold
        if self._journal.concerns(node):
            return
        self._nodes.update(node, mtime_ns=entry.mtime_ns)
        self._context.kernel.forget_node(node)

    def _lost_only_its_fraction(self, node: NodeId, entry: Entry) -> bool:
        """Whether a time is the one here as far as the server can hold it.

        It keeps its fraction here as long as the content does: for a program that reads a file,
        and looks again before it writes to it, another time tells of somebody else's change.
        """
        local, capabilities = self._context.node(node), self._context.link.capabilities
        if local is None or capabilities is None or entry.kind is not Kind.FILE:
            return False
        lost = local.mtime_ns % max(capabilities.time_granularity_ns, 1)
        is_whole = self._store.content.covers(node, 0, entry.size)
        return is_whole and local.mtime_ns - lost == entry.mtime_ns
