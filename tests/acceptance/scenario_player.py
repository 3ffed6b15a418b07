"""Plays conflict scenarios (``scenarios.json``) on a real mount and reports what came out.

Many rows are played in one mount, each in a directory of its own: base trees are made on the
server, the client pins everything and goes offline, every row's two sides are changed, the
client comes back. What then stands on the server, in the mount and in ``.awayfs/conflicts`` is
reported for each row; the tests judge it. A file's content is its token, nothing more, so that
many rows change a file without changing its size.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import sqlite3
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from awayfs.control.client import Client as Control
from awayfs.control.client import ControlError
from awayfs.testing.faulty import Plan
from tests.acceptance.scenario_hooks import BIG, HOOKS, ON_THE_WAY, Hooks
from tests.harness import Client

HERE = os.path.dirname(__file__)
SYNC_S = 60.0
DECISIONS = 4
FRESH_S = 1

REPLACED: dict[str, tuple[dict[str, str], list[list[str]]]] = {
    "S179": ({"x": "dir"}, [["rmdir", "x"], ["create", "x", "R"]]),
    "S180": ({"x/inside": "W"}, [["rmtree", "x"], ["create", "x", "R"]]),
    "S181": ({"removeLink": "->nowhere"}, [["rm", "removeLink"]]),
    "S182": (
        {"d": "dir", "f": "W", "dirLink": "->d"},
        [["rm", "dirLink"], ["symlink", "dirLink", "f"]],
    ),
    "S183": (
        {"f": "W", "repFileLink": "->f"},
        [["rm", "repFileLink"], ["create", "repFileLink", "R"]],
    ),
    "S184": ({"d": "dir", "repDirLink": "->d"}, [["rm", "repDirLink"], ["mkdir", "repDirLink"]]),
    "S185": (
        {"fileToReplace": "W"},
        [["rm", "fileToReplace"], ["symlink", "fileToReplace", "nowhere"]],
    ),
}
"""What ``replace`` means in the rows that say it in their titles only."""


@dataclass(frozen=True)
class Row:
    """One scenario."""

    id: str
    kind: str
    title: str
    base: dict[str, str]
    local: list[list[str]]
    remote: list[list[str]]
    then: list[list[str]]
    keep: list[str]

    @property
    def hook(self) -> str | None:
        """The first operation that no plain program can perform, if any."""
        steps = (*self.local, *self.remote, *self.then)
        return next((step[0] for step in steps if step[0] in HOOKS), None)

    @property
    def alone(self) -> bool:
        """Whether it synchronises in between, or stops everybody, and so wants its own mount."""
        stopping = self.hook in ON_THE_WAY or self.hook == "hang-put" or self._stops_the_volume
        return bool(self.then) or ["sync"] in self.local or stopping

    @property
    def _stops_the_volume(self) -> bool:
        return any(step[0] == "fail-list" and step[2] in ("401", "503") for step in self.remote)

    @property
    def kept_out(self) -> set[str]:
        """What of the base the client must never have seen."""
        return {step[1] for step in self.local if step[0] == "exclude"}

    @property
    def uncached(self) -> bool:
        """Whether the client may have listed, but not fetched, what it works on."""
        return self.kind == "not-cached"


def load() -> list[Row]:
    """All rows."""
    with open(os.path.join(HERE, "scenarios.json"), encoding="utf-8") as file:
        found = json.load(file)["scenarios"]
    return [_row(given) for given in found]


def _row(given: dict[str, Any]) -> Row:
    base, remote = REPLACED.get(given["id"], (given["base"], given["remote"]))
    return Row(
        id=given["id"],
        kind=given["class"],
        title=given["title"],
        base=base,
        local=[[str(part) for part in step] for step in given["local"]],
        remote=[[str(part) for part in step] for step in remote],
        then=[[str(part) for part in step] for step in given.get("then", [])],
        keep=given["keep"],
    )


# --- Operations -------------------------------------------------------------------------------


def _name(text: str) -> str:
    """A path of the table; ``NFC:`` and ``NFD:`` name a normal form."""
    form, mark, rest = text.partition(":")
    return unicodedata.normalize(form, rest) if mark and form in ("NFC", "NFD") else text


def write(path: str, content: str, mode: str = "w") -> None:
    """Write a file as a program does."""
    with open(path, mode, encoding="utf-8") as file:
        file.write(content)


def make_base(root: str, base: dict[str, str]) -> None:
    """The tree that both sides start from."""
    os.makedirs(root, exist_ok=True)
    for name, what in base.items():
        path = os.path.join(root, _name(name))
        if what == "dir":
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if what.startswith("->"):
            os.symlink(what[2:], path)
        else:
            write(path, what)


def perform(root: str, step: list[str]) -> None:
    """One operation of one side, below ``root``."""
    operation, *args = step
    _OPERATIONS[operation](root, *args)


def _at(root: str, name: str) -> str:
    return os.path.join(root, _name(name))


def _create(root: str, name: str, content: str) -> None:
    os.makedirs(os.path.dirname(_at(root, name)), exist_ok=True)  # parents are implied
    write(_at(root, name), content)


def _rename(root: str, old: str, new: str) -> None:
    os.makedirs(os.path.dirname(_at(root, new)), exist_ok=True)
    os.rename(_at(root, old), _at(root, new))


def _utimes(root: str, name: str, when: str = "older") -> None:
    seconds = 2_000_000_000 if when == "newer" else 1_000_000_000
    os.utime(_at(root, name), (seconds, seconds))


def _write(root: str, name: str, content: str) -> None:
    _create(root, name, content * (BIG // 3) if content == "BIG" else content)


_OPERATIONS: dict[str, Callable[..., None]] = {
    "create": _create,
    "write": _write,
    "append": lambda root, name, more: write(_at(root, name), more, "a"),
    "mkdir": lambda root, name: os.mkdir(_at(root, name)),
    "rmdir": lambda root, name: os.rmdir(_at(root, name)),
    "rm": lambda root, name: os.unlink(_at(root, name)),
    "rmtree": lambda root, name: shutil.rmtree(_at(root, name)),
    "rename": _rename,
    "symlink": lambda root, name, target: os.symlink(target, _at(root, name)),
    "link": lambda root, old, new: os.link(_at(root, old), _at(root, new)),
    "chmod": lambda root, name, mode: os.chmod(_at(root, name), int(mode, 8)),
    "chown": lambda root, name, _who: os.chown(_at(root, name), 2, 2),
    "utimes": _utimes,
    "mkfifo": lambda root, name: os.mkfifo(_at(root, name)),
}


# --- What is there ----------------------------------------------------------------------------

Tree = dict[str, tuple[Any, ...]]


def look(root: str, *, grain_ns: int = 1) -> Tree:
    """A tree as a value: path → kind, mode and, by kind, content and time, or target."""
    found: Tree = {}
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            try:
                facts = _facts(path, grain_ns)
            except OSError as error:  # a name that is listed and cannot be read differs from all
                facts = ("unreadable", str(error))
            found[os.path.relpath(path, root)] = facts
    return found


def _facts(path: str, grain_ns: int) -> tuple[Any, ...]:
    status = os.lstat(path)
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFLNK:
        return ("link", os.readlink(path))
    if kind == stat.S_IFREG:
        with open(path, encoding="utf-8") as file:
            token = _token(file.read())
            return ("file", mode, token, status.st_mtime_ns // grain_ns, status.st_nlink)
    return ("dir" if kind == stat.S_IFDIR else "special", mode)


def _token(content: str) -> str:
    """The token of a content; ``BIG`` is said many times over."""
    return "BIG" if content and content == "BIG" * (len(content) // 3) else content


def contents(tree: Tree) -> set[str]:
    """The contents of all files of a tree."""
    return {facts[2] for facts in tree.values() if facts[0] == "file"}


@dataclass
class Found:
    """What stands after one synchronisation, for one row."""

    server: Tree
    client: Tree
    conflicts: list[dict[str, Any]]
    records: list[dict[str, Any]]
    variants: Tree
    history: set[str]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Path below the row's tree and kind of every conflict."""
        return sorted((c["path"].partition("/tree/")[2], c["kind"]) for c in self.conflicts)

    @property
    def outcome(self) -> str:
        """In a word: the conflict kinds, or what is not there yet, or that nothing is missing."""
        if self.conflicts:
            return ", ".join(sorted({kind for _, kind in self.kinds}))
        if self.records:
            return "waiting"
        return "unseen" if self.differences() else "in step"

    def settled(self) -> tuple[Any, ...]:
        """What another synchronisation must leave alone."""
        conflicts = [(c["id"], c["path"], c["kind"]) for c in self.conflicts]
        records = [(r["seq"], r["kind"], r["state"], r["path"]) for r in self.records]
        return self.server, conflicts, records

    def reachable(self) -> set[str]:
        """Every content that a user can still get at."""
        trees = (self.server, self.client, self.variants)
        return set().union(self.history, *map(contents, trees))

    def unsettled(self) -> set[str]:
        """Paths that may differ, each with all below: conflicts, and what waits for them."""
        paths = {c["path"] for c in self.conflicts}
        for record in self.records:
            paths |= {record["path"], record["to_path"]} - {None}
        return {path.partition("/")[2] for path in paths}

    def _is_explained(self, path: str, unsettled: set[str]) -> bool:
        """Whether an unsettled change has to do with a path.

        A conflict in a directory that the server removed or replaced keeps its ancestors
        here; what was renamed on both sides has its other name on the server.
        """
        if any(
            path == u or path.startswith(u + "/") or u.startswith(path + "/") for u in unsettled
        ):
            return True
        renamed = any(kind == "rename/rename" for _, kind in self.kinds)
        facts = self.server.get(path)
        twins = {self.client[u] for u in unsettled if u in self.client}
        return renamed and facts in twins and path not in self.client

    def differences(self) -> list[str]:
        """Paths that differ between the sides without an unsettled change to explain it."""
        unsettled = self.unsettled()
        return [
            f"{path}: server {self.server.get(path)}, client {self.client.get(path)}"
            for path in sorted(self.server.keys() | self.client.keys())
            if self.server.get(path) != self.client.get(path)
            and not self._is_explained(path, unsettled)
        ]


@dataclass
class Played:
    """A row's whole course. ``during``: while the server had trouble, for rows in which it has;
    ``trouble``: what a program was refused.
    """

    row: Row
    during: Found | None = None
    found: Found | None = None
    again: Found | None = None
    decided: Found | None = None
    keep: str = ""
    copies: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


class Player:
    """Plays rows on one client; each lives in the directory of its id."""

    def __init__(self, client: Client, rows: Iterable[Row]) -> None:
        self.client = client
        self.played = {row.id: Played(row) for row in rows}
        plan = Plan(os.path.join(client.home, "trouble"))
        self.hooks = Hooks(self, plan)
        self._fresh_s = FRESH_S
        if any(played.row.hook or played.row.alone for played in self.played.values()):
            client.environment |= plan.environment
            self._fresh_s = 0  # few things to ask for, and none to wait for
        self._grain = client.server.time_grain_ns

    def here(self, row: Row) -> str:
        """The row's tree in the mount."""
        return self.client.path(row.id, "tree")

    def there(self, row: Row) -> str:
        """The row's tree on the server."""
        return os.path.join(self.client.server.root, row.id, "tree")

    def prepare(self) -> None:
        """Base trees on the server; a bystander keeps the brakes about emptied roots off."""
        make_base(self.client.server.root, {"bystander": "nothing happens to it"})
        for played in self.played.values():
            row = played.row
            base = {name: what for name, what in row.base.items() if name not in row.kept_out}
            make_base(self.there(row), base)

    def take_along(self, *, pinned: bool = True) -> None:
        """Mount and cache everything, or with ``pinned`` False only the listings."""
        self.client.mount(f"fresh={self._fresh_s}")
        if pinned:
            self.client.awayfs("pin", self.client.mountpoint)
        else:
            look_at_names(self.client.mountpoint)
        self.client.offline()

    def diverge(self) -> None:
        """Both sides' changes of every row."""
        for played in self.played.values():
            for step in played.row.local:
                self._step(played, self.here(played.row), step)
            for step in played.row.remote:
                self._step(played, self.there(played.row), step)

    def _step(self, played: Played, root: str, step: list[str]) -> None:
        if step[0] == "sync":
            self.come_back()
            self.client.offline()
            self.hooks.appear()
            return
        try:
            if step[0] in HOOKS:
                self.hooks.perform(played.row, root, step)
            else:
                perform(root, step)
        except OSError as error:
            played.trouble.append(f"{' '.join(step)}: {error}")

    def continue_alone(self) -> None:
        """The ``then`` steps of a row that has the mount to itself.

        The tables they come from free a conflicted name at each sync (both versions move to
        numbered copies), so both are kept here, and what keeps the name is moved away.
        """
        (played,) = self.played.values()
        here, there = self.here(played.row), self.there(played.row)
        for step in played.row.then:
            if step[0] == "sync":
                self.come_back()
                for conflict in self._ask("conflicts", {"path": ""})["conflicts"]:
                    self._ask("resolve", {"path": conflict["path"], "keep": "both"})
                    self.come_back()
                    path = self.client.path(conflict["path"])
                    os.rename(path, f"{path}.round{len(os.listdir(here))}")
                    self.come_back()
                self.client.offline()
            else:
                side, _, operation = step[0].partition(":")
                perform(here if side == "L" else there, [operation, *step[1:]])

    def come_back(self) -> None:
        """Online, and everything sent that can be; what is to happen meanwhile happens."""
        self.client.online()
        meanwhile = self.hooks.take_meanwhile()
        if meanwhile:
            with ThreadPoolExecutor(1) as beside:
                syncing = beside.submit(self.sync)
                for act in meanwhile:
                    act()
                with contextlib.suppress(ControlError):  # the server is away meanwhile, or was
                    syncing.result(SYNC_S)
            self.client.online()
        self.sync()

    def sync(self) -> None:
        """Send what can be sent; bounded, since a replay that never rests is a failure."""
        deadline = time.monotonic() + SYNC_S

        def watch(_: dict[str, Any]) -> None:
            assert time.monotonic() < deadline, f"the replay found no rest within {SYNC_S} s"

        self._ask("sync", {"wait": True}, watch)

    def report(self) -> None:
        """What came out, and what a second synchronisation adds (nothing)."""
        self.come_back()
        if self.hooks.lasting:
            for key, found in self.look_at_all().items():
                self.played[key].during = found
            self.hooks.lift()
            self.come_back()
        first = self.look_at_all()
        self.sync()
        second = self.look_at_all()
        for key, played in self.played.items():
            played.found, played.again = first[key], second[key]

    def decide(self, keep_for: Callable[[Row, int], str]) -> None:
        """Resolve every conflict; what came out then."""
        for number, played in enumerate(self.played.values()):
            played.keep = keep_for(played.row, number)
        for _ in range(DECISIONS):  # a decision may uncover a conflict behind it
            if not self._ask("conflicts", {"path": ""})["conflicts"]:
                break
            for played in self.played.values():
                self._decide(played)
            self.sync()
        found = self.look_at_all()
        for key, played in self.played.items():
            played.decided = found[key]

    def _decide(self, played: Played) -> None:
        mine = self._ask("conflicts", {"path": played.row.id})["conflicts"]
        for path in sorted({conflict["path"] for conflict in mine}):
            try:
                answer = self._ask("resolve", {"path": path, "keep": played.keep})
            except ControlError as error:
                played.trouble.append(f"resolve {path} --keep {played.keep}: {error}")
            else:
                played.copies += [answer["copy"]] if answer["copy"] else []

    def look_at_all(self) -> dict[str, Found]:
        """Both sides, the conflicts and their variants, by row."""
        if self._fresh_s:
            time.sleep(self._fresh_s + 0.2)  # what was observed before counts no more
        conflicts = self._ask("conflicts", {"path": ""})["conflicts"]
        records = self._ask("journal_list", {})["records"]
        return {
            key: Found(
                server=look(os.path.dirname(self.there(played.row)), grain_ns=self._grain),
                client=look(os.path.dirname(self.here(played.row)), grain_ns=self._grain),
                conflicts=_of_row(conflicts, key),
                records=_of_row(records, key),
                variants=look(self.client.path(".awayfs", "conflicts", key)),
                history=kept_versions(self.client, key),
            )
            for key, played in self.played.items()
        }

    def _ask(self, method: str, params: dict[str, Any], on_progress: Any = None) -> dict[str, Any]:
        (socket,) = glob.glob(os.path.join(self.client.runtime, "awayfs", "*.sock"))
        with Control(socket) as control:
            return control.call(method, params, SYNC_S, on_progress)


def kept_versions(client: Client, key: str) -> set[str]:
    """What the history of the row's files holds: contents that ``--undo`` brings back."""
    (state,) = glob.glob(os.path.join(client.state, "awayfs", "volumes", "*"))
    with contextlib.closing(sqlite3.connect(f"file:{state}/volume.db?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT id, path FROM history LEFT JOIN history_shapes USING (id)"
            " WHERE coalesce(content, 1)"
        ).fetchall()
    files = [
        f"{state}/history/{number}" for number, path in rows if path.startswith(f"{key}/".encode())
    ]
    return {_read(path) for path in files}


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _of_row(items: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    places = ("path", "to_path")
    return [i for i in items if any((i.get(p) or "").startswith(key + "/") for p in places)]


def look_at_names(root: str) -> None:
    """List a whole tree without opening a file."""
    for directory, _, files in os.walk(root):
        for name in files:
            os.lstat(os.path.join(directory, name))


_COPY = re.compile(r" \(conflict [^()]* \d{4}-\d\d-\d\d(?: \d+)?\)")


def is_copy(path: str) -> bool:
    """Whether awayfs named it: a conflict copy."""
    return _COPY.search(path) is not None
