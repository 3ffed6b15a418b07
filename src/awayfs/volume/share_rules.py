"""What ``.awayfs.toml`` files on the share say: defaults for the directory that has one.

What comes from the share chooses among built-in strategies. A file that is invalid, too large,
or names a command is ignored there, and said.

Rules for conflicts are looked up when one is met. Settings (``core.setting_table``) count from
when the file was seen in its directory and read, which is done beside the requests.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from dataclasses import replace

from awayfs.control.config import parse
from awayfs.core.effective import Layer, Place, cost
from awayfs.core.errors import RemoteError
from awayfs.core.merge_rules import Rule, rules_of
from awayfs.core.setting_layers import DIRECTORY, MOST_COMPLAINTS, Source, layers_of
from awayfs.core.setting_table import TABLE
from awayfs.core.types import Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.fetch import Fetcher
from awayfs.volume.slices import Slices
from awayfs.volume.tree import Tree

log = logging.getLogger(__name__)

NAME = b".awayfs.toml"
LARGEST = 64 << 10
MOST_FILES = 200
MOST_PATTERNS_IN_ALL = 1000
"""Of all such files together: each path that is looked up is held against them."""
LOOK_NS = 2 * SECOND_NS
SETTINGS_S = 5.0
"""How often the files with settings are looked at for a new version."""
Version = tuple[int, int, bytes | None]


class ShareRules:
    """Reads them, each once a version."""

    def __init__(self, context: Context, tree: Tree, fetcher: Fetcher) -> None:
        self._context = context
        self._tree = tree
        self._store = context.store
        self._fetcher = fetcher
        self._read: dict[NodeId, tuple[Version, list[Rule]]] = {}
        self._complaints: dict[NodeId, list[str]] = {}
        self._looked: dict[bytes, list[Rule]] = {}
        self._looked_ns = 0
        self._layers: dict[NodeId, list[Layer]] = {}
        self._beyond: list[str] = []
        self._again = asyncio.Event()
        self._store.nodes.watch(NAME, self._again.set)
        self._again.set()

    async def run(self) -> None:
        """Read what appears and what changes; runs until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._again.wait(), SETTINGS_S)
            except TimeoutError:
                pass
            self._again.clear()
            await self.read_settings()

    async def read_settings(self) -> None:
        """Have the settings of all files that are known be those of this moment."""
        nodes, left = self._store.nodes, MOST_PATTERNS_IN_ALL
        known: dict[bytes, list[Layer]] = {}
        files = await self._nearest_to_root()
        beyond = files[MOST_FILES][0] if len(files) > MOST_FILES else None
        for directory, node_id in files[:MOST_FILES]:
            node = self._context.node(node_id)
            if node is None or not nodes.names(node_id):
                continue
            await self._of_file(node, directory)
            layers = self._layers.get(node_id, [])
            left -= sum(map(cost, layers))
            if left < 0:
                beyond = directory
                break
            known[directory] = [replace(one, root=directory) for one in layers]
        self._say_beyond(beyond)
        self._context.effective.set_share(known)

    async def _nearest_to_root(self) -> list[tuple[bytes, NodeId]]:
        """The files by directory, those first that count first where not all of them can."""
        nodes, slices = self._store.nodes, Slices()
        found: list[tuple[int, bytes, NodeId]] = []
        for parent, node in nodes.named(NAME):
            await slices.pause()
            directory = nodes.path(parent)
            if directory is not None:
                found.append((directory.count(b"/") + bool(directory), directory, node))
        return [(directory, node) for _, directory, node in sorted(found)]

    def _say_beyond(self, directory: bytes | None) -> None:
        """Tell of the first file that the share has too many settings for."""
        said, self._beyond = self._beyond, []
        if directory is not None:
            why = f"beyond {MOST_FILES} such files, or {MOST_PATTERNS_IN_ALL} patterns in them"
            self._beyond = [f"{_shown(directory)}: is {why}; it, and what follows, is ignored"]
        for line in self._beyond if self._beyond != said else ():
            log.warning("%s", line)

    def complaints(self) -> list[str]:
        """What is wrong with the files that were looked at."""
        return [*self._beyond, *(line for lines in self._complaints.values() for line in lines)]

    async def of(self, path: bytes) -> list[Rule]:
        """The rules that count at a path, the nearest directory's first."""
        return await self._in(path.rpartition(b"/")[0])

    async def _in(self, directory: bytes) -> list[Rule]:
        """Those that count in a directory, looked at again after a while."""
        now = self._context.now()
        if abs(now - self._looked_ns) > LOOK_NS:
            self._looked.clear()
            self._looked_ns = now
        if directory not in self._looked:
            rules: list[Rule] = []
            above = self._store.nodes.resolve(directory)
            node = await self._looked_up(above.id) if above is not None else None
            if node is not None:
                rules += await self._of_file(node, directory)
            if directory:
                rules += await self._in(directory.rpartition(b"/")[0])
            self._looked[directory] = rules
        return self._looked[directory]

    async def _looked_up(self, directory: NodeId) -> Node | None:
        """The file in a directory, which may never have been listed here."""
        try:
            found = self._tree.lookup(directory, NAME)
            return found if isinstance(found, Node) else await found
        except (OSError, RemoteError):
            return None  # there is none, or it cannot be asked for now

    async def _of_file(self, node: Node, directory: bytes) -> list[Rule]:
        shown = _shown(directory)
        current = self._context.node(node.id) or node
        version = (current.mtime_ns, current.size, self._store.content.token(node.id))
        known = self._read.get(node.id)
        if known is not None and known[0] == version:
            return known[1]
        rules, wrong, lasts = await self._parsed(current, shown, directory)
        for line in wrong[:MOST_COMPLAINTS]:
            if line not in self._complaints.get(node.id, []):
                log.warning("%s", line)
        self._complaints[node.id] = wrong[:MOST_COMPLAINTS]
        if lasts:
            version = (current.mtime_ns, current.size, self._store.content.token(node.id))
            self._read[node.id] = (version, rules)
        return rules

    async def _parsed(
        self, node: Node, shown: str, directory: bytes
    ) -> tuple[list[Rule], list[str], bool]:
        """Rules, complaints, and whether that stays so while the file is the same."""
        self._layers.setdefault(node.id, [])
        if node.kind is not Kind.FILE:
            return [], [f"{shown}: is not a file; it is ignored"], True
        if node.size > LARGEST:
            return [], [f"{shown}: is larger than {LARGEST >> 10} KiB; it is ignored"], True
        if self._store.conflicts.of_node(node.id):
            return [], [f"{shown}: is in conflict itself; it is ignored until decided"], False
        try:
            content = await self._content(node)
        except (OSError, RemoteError) as error:
            return [], [f"{shown}: cannot be read now: {error}"], False
        table, complaint = parse(content, shown)
        if complaint is not None:
            self._layers[node.id] = []
            return [], [complaint], True
        rules, wrong = rules_of(table.get("merge", []), shown, root=directory, commands=False)
        source = Source(shown, share=True, root=directory)
        self._layers[node.id] = layers_of(table, source, Place.SHARE, "")
        for name in table:
            if name not in ("merge", DIRECTORY, *TABLE):
                source.complain(f"there is no setting {name!r}")
        return rules, [*wrong, *source.complaints], True

    async def _content(self, node: Node) -> bytes:
        await self._fetcher.whole(node.id)
        if not node.size:
            return b""
        fd = self._store.content.open(node.id, create=False)
        try:
            if not self._store.content.covers(node.id, 0, node.size):
                raise OSError(errno.EAGAIN, "it has just changed")
            return os.pread(fd, LARGEST, 0)
        finally:
            os.close(fd)


def _shown(directory: bytes) -> str:
    return os.fsdecode(directory + b"/" + NAME if directory else NAME)
