"""What of the share can be seen on a client, and what it keeps beside that."""

from __future__ import annotations

import os
from pathlib import Path

from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.nodes import Node
from tests.model.daemon import Daemon
from tests.model.ledger import tokens_in
from tests.model.share import Tree

KEPT = ("variants", "history", "lost+found")


class View(Daemon):
    """What stands in the view of whoever works on a client, and what it keeps beside that."""

    def tokens(self, node_id: NodeId) -> set[bytes]:
        """What stands in this client's view of a node, and of all below it."""
        node = self.volume.context.node(node_id)
        if node is None:
            return set()
        if node.kind is Kind.DIRECTORY:
            children = self.store.nodes.children(node_id)
            return {t for _, child in children for t in self.tokens(child.id)}
        if node.kind is not Kind.FILE:
            return set()
        found = set(tokens_in(self.content(node)))
        base = self.store.server.get(node_id)
        if base is not None and not self.store.content.covers(node_id, 0, node.size):
            found |= self.share.versions.get(base.token, frozenset())
        return found

    def _here(self, node_id: NodeId) -> set[bytes]:
        """What of a node, and of all below it, has its content here."""
        node = self.volume.context.node(node_id)
        if node is not None and node.kind is Kind.DIRECTORY:
            children = self.store.nodes.children(node_id)
            return {t for _, child in children for t in self._here(child.id)}
        if node is None or node.kind is not Kind.FILE:
            return set()
        data = self.content(node)
        ranges = self.store.content.ranges(node_id)
        return {t for r in ranges for t in tokens_in(data[r.start : r.end])}

    def content(self, node: Node) -> bytes:
        """What is here of a file."""
        try:
            with open(self.store.content.fd_path(node.id), "rb") as file:
                return file.read(node.size)
        except FileNotFoundError:
            return b""

    def tree(self) -> Tree:
        """As ``Share.tree``."""
        found: Tree = {}
        names: dict[NodeId, list[str]] = {}
        pending: list[tuple[NodeId, str]] = [(ROOT, "")]
        while pending:
            directory, above = pending.pop()
            for name, child in self.store.nodes.children(directory):
                self.volume.context.opened.overlay(child)
                shown = above + os.fsdecode(name)
                if child.kind is Kind.DIRECTORY:
                    found[shown] = ("dir", oct(child.mode))
                    pending.append((child.id, shown + "/"))
                elif child.kind is Kind.SYMLINK:
                    found[shown] = ("link", os.fsdecode(child.target or b""))
                else:
                    names.setdefault(child.id, []).append(shown)
                    whole = self.store.content.covers(child.id, 0, child.size)
                    content = self.content(child) if whole else f"{child.size} bytes not here"
                    found[shown] = ("file", oct(child.mode), content)
        for group in names.values():
            for name in group:
                found[name] += (tuple(sorted(set(group) - {name})),)
        return found

    def kept(self) -> set[bytes]:
        """All tokens that this client can still show somebody, whatever the server has."""
        found = self._here(ROOT)
        for conflict in self.store.conflicts.all():
            found |= self._here(conflict.node)
        for folder in KEPT:
            for at, _, files in os.walk(f"{self.state}/{folder}"):
                for name in files:
                    found |= tokens_in(Path(at, name).read_bytes())
        return found
