"""The settings that count in a volume, for the whole of it and for each path.

What can differ from path to path is answered from memory; where nothing on the way says anything
about a setting, that costs no more than a look at the volume's own value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from awayfs.core.effective import (
    Found,
    Layer,
    LeftOut,
    Place,
    in_order,
    left_out,
    patterns_at,
    resolve,
)
from awayfs.core.setting_table import MARKS, TABLE, out_of_order
from awayfs.core.settings import Settings
from awayfs.core.types import NodeId
from awayfs.store.store import Store

log = logging.getLogger(__name__)

LOOK_NS = 1_000_000_000
"""How often the configuration file is looked at."""
REMEMBERED = 50_000
XATTR = "user.awayfs."


class Effective:
    """Answers which value counts. ``options`` are the settings given at the mount."""

    def __init__(
        self,
        store: Store,
        options: Mapping[str, Any],
        settings: Callable[[], Settings],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._option = Layer(Place.OPTION, "-o at the mount", dict(options))
        self._settings = settings
        self._now = now
        self._looked_ns = 0
        self._config: Settings | None = None
        self._share: dict[bytes, list[Layer]] = {}
        self._seen: tuple[int, ...] = ()
        self._pinned: list[Layer] = []
        self._rooted = False  # some layers are about single nodes
        self._uprooted = False  # and their paths may be others now
        store.nodes.on_move.append(self._moved)
        self._layers: list[Layer] = []
        self._varying: frozenset[str] = frozenset()
        self._wide: dict[str, Any] = {}
        self._known: dict[tuple[NodeId, str], Any] = {}
        self.on_change: list[Callable[[], None]] = []

    # -- for the whole volume -------------------------------------------------------------

    def value(self, name: str) -> Any:
        """The value for the volume's root."""
        self._look()
        return self._wide[name]

    def marks(self) -> dict[str, float]:
        """The culling watermarks; where several places contradict each other, the defaults."""
        marks = {name: self.value(name) for name in MARKS}
        if out_of_order(marks) is None:
            return marks
        return {name: TABLE[name].default for name in MARKS}

    def complaints(self) -> list[str]:
        """What is wrong with the settings of several places taken together."""
        wrong = out_of_order({name: self.value(name) for name in MARKS})
        return [] if wrong is None else [f"{wrong}; the defaults are used"]

    # -- for a path -----------------------------------------------------------------------

    def of(self, node: NodeId, name: str) -> Any:
        """The value of a setting for a node, by its first name."""
        self._look()
        if name not in self._varying:
            return self._wide[name]
        key = node, name
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            path = self._store.nodes.path(node)
            found = self._wide[name] if path is None else self._at(path, name).value
            self._known[key] = found
        return self._known[key]

    def at(self, path: bytes, name: str) -> Found:
        """The value for a path, and where it comes from."""
        self._look()
        return self._at(path, name)

    def varies(self, name: str) -> bool:
        """Whether a setting is not the same everywhere."""
        self._look()
        return name in self._varying

    def left_out(self, path: bytes) -> LeftOut | None:
        """The pattern by which hoard walks leave a path out, or None.

        What a person pinned himself, no file on the share leaves out.
        """
        self._look()
        found = left_out(path, self._layers)
        if found is None or not self._share:
            return found
        pin = self._at(path, "pin")
        if pin.value is None or pin.place >= Place.SHARE:
            return found
        return left_out(path, [one for one in self._layers if one.place is not Place.SHARE])

    def patterns(self, path: bytes) -> list[LeftOut]:
        """All patterns of ``leave-out`` that count at a path."""
        self._look()
        return patterns_at(path, self._layers)

    def is_pinned(self, node: NodeId) -> bool:
        """Whether a node is to be kept here, by a pin or by a setting."""
        pinned = self._store.pins.is_pinned(node)
        self._look()
        if not (self._pinned or (pinned and "never-cache" in self._varying)):
            return pinned
        by_first = self.of(node, "pin") is not None
        return by_first or any(one is not None for one in self._by_further_names(node, "pin"))

    def is_pinned_by_share(self, node: NodeId) -> bool:
        """Whether it is only a file on the share that wants a node to be kept here."""
        if not self._share or self._store.pins.is_pinned(node):
            return False
        path = self._store.nodes.path(node)
        return path is not None and self._at(path, "pin").place is Place.SHARE

    def stays(self, node: NodeId) -> bool:
        """Whether culling has to leave a node alone."""
        if self.is_pinned(node) or not self.of(node, "cull"):
            return True
        return not all(self._by_further_names(node, "cull"))

    def _by_further_names(self, node: NodeId, name: str) -> Iterator[Any]:
        """The values for a file of several names: what is to be kept by one of them is kept."""
        nodes = self._store.nodes
        names = nodes.names(node) if name in self._varying else []
        for parent, own in names if len(names) > 1 else ():
            directory = nodes.path(parent)
            if directory is not None:
                yield self._at(directory + b"/" + own if directory else own, name).value

    def is_transient(self, node: NodeId) -> bool:
        """Whether content goes when it is not used any more."""
        return bool(self.of(node, "never-cache"))

    def pinned_places(self) -> list[Layer]:
        """The layers beside pins that ask for something to be kept: where walks may begin."""
        self._look()
        return list(self._pinned)

    # -- what they come from --------------------------------------------------------------

    def set_share(self, layers: Mapping[bytes, list[Layer]]) -> None:
        """What the files of directories on the share say now."""
        if self._share != layers:
            self._share = dict(layers)
            self._build()

    def _at(self, path: bytes, name: str) -> Found:
        return resolve(name, path, self._layers)

    def _look(self) -> None:
        """Follow what has changed."""
        now = self._now()
        if abs(now - self._looked_ns) >= LOOK_NS or self._config is None:
            self._looked_ns = now
            config = self._settings()
            if config is not self._config:
                self._config = config
                self._build()
                return
        if self._uprooted or self._seen != self._changes():
            self._build()

    def _changes(self) -> tuple[int, int]:
        return self._store.node_settings.changes, self._store.pins.changes

    def _moved(self, node: NodeId, directory: bool) -> None:
        """What is known of paths is outdated."""
        self._known.clear()
        store = self._store
        if self._rooted and (
            directory or node in store.node_settings.all() or store.pins.get(node) is not None
        ):
            self._uprooted = True

    def _build(self) -> None:
        self._seen, self._uprooted = self._changes(), False
        config = () if self._config is None else self._config.layers
        shared = [layer for layers in self._share.values() for layer in layers]
        nodes = list(self._of_nodes())
        self._rooted = bool(nodes)
        layers = in_order([*nodes, *config, self._option, *shared])
        self._known.clear()
        if layers == self._layers:
            return
        self._layers = layers
        self._varying = frozenset(
            name for one in self._layers if one.root or one.pattern for name in one.values
        )
        self._pinned = [
            layer
            for layer in layers
            if layer.place is not Place.XATTR and layer.values.get("pin") is not None
        ]
        self._wide = {name: self._at(b"", name).value for name in TABLE}
        for call in self.on_change:
            call()

    def _of_nodes(self) -> Iterator[Layer]:
        store = self._store
        for node, texts in store.node_settings.all().items():
            path = store.nodes.path(node)
            values = {name: TABLE[name].read(text) for name, text in texts.items()}
            if path is not None:
                yield Layer(Place.XATTR, f"xattr of {_shown(path)}", values, path)
        for pin in store.pins.all():
            path = store.nodes.path(pin.node)
            if path is not None:
                yield Layer(Place.XATTR, f"pin of {_shown(path)}", {"pin": pin.priority}, path)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape") or "the root"
