"""The operations of ``scenarios.json`` that no plain program can perform.

A server that refuses, hangs or loses its answers is played by ``awayfs.testing.faulty`` around
the real adapter of the real server; a write in the middle of something, by holding a call until
it was made. ``trouble`` lasts until it is lifted; what happens ``meanwhile`` does so in the next
synchronisation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from awayfs.testing.faulty import MUTATIONS, Plan, Trouble
from tests.harness import eventually

if TYPE_CHECKING:
    from tests.acceptance.scenario_player import Player, Row

PATIENCE_S = 20.0
BIG = 3 << 22
"""Bytes of what is written where the word is ``BIG``."""

LIST_ERRORS = {
    "403": "EACCES",
    "404": "NotFound",
    "500": "EIO",
    "503": "Unreachable",
    "401": "AuthenticationRequired",
    "200-instead-of-207": "Implausible",
}
RIGHTS = {
    "no-write": ("replace", "set_attributes", "set_xattr"),
    "no-create": ("stage", "replace", "make", "link"),
    "no-delete": ("remove", "move-out"),
}
LASTING = ("fail-get", "deny", "hang-put", "fail-list", "perm")
"""Hooks whose trouble is there at the first synchronisation and over at the next."""
ON_THE_WAY = (
    "begin-replay",
    "create-during-sync",
    "create-unseen",
    "drop-reply",
    "restart-server",
    "write-during-sync",
)
"""Hooks that happen within one synchronisation: such a row has it to itself."""
BY_HAND = ("exclude", "mark-conflict", "unreadable")
HOOKS = (*LASTING, *ON_THE_WAY, *BY_HAND)


class Hooks:
    """The troubles of the rows of one mount."""

    def __init__(self, player: Player, plan: Plan) -> None:
        self._player = player
        self._plan = plan
        self._meanwhile: list[Callable[[], None]] = []
        self._unseen: list[str] = []
        self.lasting = False

    def perform(self, row: Row, root: str, step: list[str]) -> None:
        """Arm, or do, one step of a row, of the side whose tree is at ``root``."""
        hook, *args = step
        getattr(self, "_" + hook.replace("-", "_"))(row, root, *args)
        self.lasting |= hook in LASTING

    def take_meanwhile(self) -> list[Callable[[], None]]:
        """What is to be done while the next synchronisation runs."""
        taken, self._meanwhile = self._meanwhile, []
        return taken

    def lift(self) -> None:
        """The trouble is over."""
        self._plan.lift()
        self.lasting = False

    def _trouble(self, row: Row, path: str, what: str, *calls: str, once: bool = False) -> Trouble:
        under = "/".join(part for part in (row.id, "tree", path) if part)
        name = f"{row.id}{len(self._plan.read())}"
        trouble = Trouble(name, tuple(calls), under, what, once)
        self._plan.add(trouble)
        return trouble

    # -- a server that fails -----------------------------------------------------------------

    def _fail_get(self, row: Row, _root: str, path: str) -> None:
        self._trouble(row, path, "EIO", "fetch", "digest")

    def _fail_list(self, row: Row, _root: str, path: str, code: str) -> None:
        self._trouble(row, path, LIST_ERRORS[code], "list")

    def _deny(self, row: Row, _root: str, path: str) -> None:
        self._trouble(row, path, "EACCES", *MUTATIONS)

    def _perm(self, row: Row, _root: str, path: str, right: str) -> None:
        self._trouble(row, path, "EACCES", *RIGHTS[right])

    def _hang_put(self, row: Row, _root: str, _pattern: str) -> None:
        self._trouble(row, "", "hang", "stage")

    def _drop_reply(self, row: Row, _root: str, _count: str) -> None:
        lost = self._trouble(row, "", "lose-answer", "replace", "make", once=True)
        happened = partial(self._plan.happened, lost.name)
        self._meanwhile.append(lambda: eventually(happened, "the lost answer", PATIENCE_S))

    def _restart_server(self, row: Row, root: str, _when: str) -> None:
        held = self._trouble(row, "", "hold", "replace")

        def restart() -> None:
            eventually(lambda: _staged_bytes(root), "a part of the file there", PATIENCE_S)
            self._player.client.server.cut()
            self._player.client.server.restore()
            self._plan.lift(held.name)

        self._meanwhile.append(restart)

    # -- something that happens in the middle of it ------------------------------------------

    def _act_while(self, held: Trouble, act: Callable[[], None]) -> None:
        try:
            eventually(lambda: self._plan.happened(held.name), held.what, PATIENCE_S)
            act()
        finally:
            self._plan.lift(held.name)

    def _create_during_sync(self, row: Row, root: str, names: str) -> None:
        """The first is on its way while the others appear."""
        stem, _, last = names.rpartition("..")
        stem = stem.rstrip("0123456789")
        _write(os.path.join(root, f"{stem}0"), "N")
        held = self._trouble(row, "", "hold", "stage")

        def create() -> None:
            for number in range(1, int(last) + 1):
                _write(os.path.join(root, f"{stem}{number}"), "N")

        self._meanwhile.append(lambda: self._act_while(held, create))

    def _write_during_sync(self, row: Row, root: str, path: str, content: str) -> None:
        """The server's new content is on its way into the cache when it is written."""
        held = self._trouble(row, path, "hold-answer", "fetch")
        place = os.path.join(root, path)
        client = self._player.client

        def walk_and_write() -> None:
            there = os.path.relpath(place, client.mountpoint)
            _in_another_second(os.path.join(client.server.files, there))
            with ThreadPoolExecutor(1) as beside:
                walk = beside.submit(client.awayfs, "hoard", root)
                self._act_while(held, lambda: _write(place, content))
                walk.result(PATIENCE_S)

        self._meanwhile.append(walk_and_write)

    def _create_unseen(self, _row: Row, root: str, path: str, content: str) -> None:
        """Still open when the two sides meet: as near to unknown as one write path lets it be."""
        file = open(os.path.join(root, path), "x", encoding="utf-8")  # noqa: SIM115
        file.write(content)
        file.flush()
        self._meanwhile.append(file.close)

    def _begin_replay(self, row: Row, _root: str) -> None:
        """Carried out on the server, and its answer held, until the next steps were done."""
        held = self._trouble(row, "", "hold-answer", "replace")
        self._player.client.online()
        eventually(lambda: self._plan.happened(held.name), "the replay's begin", PATIENCE_S)
        self._meanwhile.append(lambda: self._plan.lift(held.name))

    # -- what is done by hand ----------------------------------------------------------------

    def _mark_conflict(self, row: Row, root: str, path: str) -> None:
        """A real one: both sides write."""
        _write(os.path.join(root, path), "here")
        _write(os.path.join(self._player.there(row), path), "there")

    def _unreadable(self, _row: Row, root: str, path: str) -> None:
        os.chmod(os.path.join(root, path), 0)

    def _exclude(self, row: Row, _root: str, path: str) -> None:
        """Not cached, not even as a name: it comes to the server when nobody looks any more."""
        self._unseen.append(os.path.join(self._player.there(row), path))

    def appear(self) -> None:
        """The client went offline: what it must not have seen comes to the server."""
        while self._unseen:
            os.mkdir(self._unseen.pop())


def _in_another_second(place: str) -> None:
    """A change that only a digest would tell, in the second of the one before, no walk fetches."""
    changed = os.stat(place).st_mtime
    os.utime(place, (changed + 2, changed + 2))


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def _staged_bytes(directory: str) -> int:
    """How much of an upload is on the server, under a name that no listing of awayfs shows."""
    names = [name for name in os.listdir(directory) if name.startswith(".awayfs-")]
    return sum(os.lstat(os.path.join(directory, name)).st_size for name in names)
