"""What a session has staged: names that nobody else uses, so what was seen of them still counts."""

from __future__ import annotations

from collections import OrderedDict

from awayfs.core.types import Entry, RemotePath

REMEMBERED = 4096


class Staged:
    """Entries of whole staged files by their names; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[RemotePath, Entry] = OrderedDict()

    def note(self, name: RemotePath, entry: Entry) -> None:
        """This is there, and durable."""
        self._known[name] = entry
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, name: RemotePath) -> None:
        """It is not there any more, or may be another."""
        self._known.pop(name, None)

    def of(self, name: RemotePath) -> Entry | None:
        """What is there; None: look."""
        return self._known.get(name)
