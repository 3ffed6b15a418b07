"""The rules: what may happen, in which order Hypothesis likes.

``Apart`` lets everybody work beside everybody else. In ``InTurns`` all is synchronised whenever
another one begins to work, so that there is never a conflict.
"""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from awayfs.core.conflicts import Resolution
from awayfs.volume.fault import NAMES
from tests.model.world import Broken, World

FILES = ("a", "b", "d/a", "d/b", "e/a", "d/e/a")
DIRECTORIES = ("d", "e", "d/e", "e/d")
PATHS = FILES + DIRECTORIES
MODES = (0o600, 0o640)
LOCAL = tuple(name for name in NAMES if name.startswith(("journal.", "changes.", "files.")))
SENDING = tuple(name for name in NAMES if name.startswith(("replay.", "parking.", "fetch.")))
DECIDING = tuple(name for name in NAMES if name.startswith("resolve."))

anywhere = st.sampled_from(PATHS)
files = st.sampled_from(FILES)
directories = st.sampled_from(DIRECTORIES)


def _op(name: str, *arguments: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


CHANGES = (
    _op("write", files, st.sampled_from(("new", "append", "middle", "truncate"))),
    _op("write", files, st.sampled_from(("append", "new"))),
    _op("write", files, st.just("create")),
    _op("save", files, st.sampled_from(("over", "backup"))),
    _op("mkdir", directories),
    _op("unlink", files),
    _op("rmdir", directories),
    _op("remove", directories),
    _op("retype", anywhere),
    _op("rename", files, files),
    _op("rename", directories, directories),
    _op("rename", anywhere, anywhere),
    _op("exchange", anywhere, anywhere),
    _op("link", files, files),
    _op("symlink", files, st.sampled_from(("a", "x"))),
    _op("chmod", anywhere, st.sampled_from(MODES)),
    _op("utime", files),
    _op("xattr", anywhere, st.sampled_from(("x", "y"))),
)
HELD = (_op("hold", files), _op("scribble"), _op("release"))
changes = st.one_of(*CHANGES)
clients = st.sampled_from(("a", "b"))
own_changes = st.one_of(*CHANGES, *HELD, _op("read", files))
cuts = st.sampled_from(("before", "after", "inside1", "inside2", "inside3"))
START = (
    ("mkdir", "d"),
    ("mkdir", "e"),
    ("mkdir", "d/e"),
    ("write", "a", "create"),
    ("write", "b", "create"),
    ("write", "d/a", "create"),
    ("write", "d/b", "create"),
    ("write", "e/a", "create"),
    ("write", "d/e/a", "create"),
)
missing = st.sets(st.sampled_from([path for _, path, *_ in START]), max_size=4)


class Machine(RuleBasedStateMachine):
    """What both kinds of run have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(without=missing, decisions=st.integers(0, 1 << 16))
    def begin(self, without: set[str], decisions: int) -> None:
        self.world = World(decisions)
        for op in START:
            if op[1] not in without:
                self.world.serve(op)

    def before(self, who: str) -> World:
        """Called before somebody works."""
        assert self.world is not None
        return self.world

    @rule(ops=st.lists(changes, min_size=1, max_size=3))
    def server(self, ops: list[tuple[Any, ...]]) -> None:
        world = self.before("s")
        for op in ops:
            world.serve(op)

    @rule(who=clients, ops=st.lists(own_changes, min_size=1, max_size=4))
    def change(self, who: str, ops: list[tuple[Any, ...]]) -> None:
        world = self.before(who)
        for op in ops:
            world.act(who, op)

    @rule(who=clients, ops=st.lists(own_changes, min_size=1, max_size=4))
    def work_offline(self, who: str, ops: list[tuple[Any, ...]]) -> None:
        self.offline(who)
        self.change(who, ops)

    @rule(who=clients)
    def sync(self, who: str) -> None:
        client = self.before(who).client(who)
        self.world.do(client, f"{who}: sync", client.sync())

    @rule(who=clients)
    def online(self, who: str) -> None:
        client = self.before(who).client(who)
        if not client.online:
            self.world.do(client, f"{who}: online", client.go_online())

    @rule(who=clients)
    def drain(self, who: str) -> None:
        client = self.before(who).client(who)
        if client.online:
            self.world.do(client, f"{who}: drain", client.drain())

    @rule(who=clients)
    def offline(self, who: str) -> None:
        world = self.before(who)
        world.client(who).go_offline()
        world.log.append(f"{who}: offline")

    @rule(who=clients)
    def crash(self, who: str) -> None:
        client = self.before(who).client(who)
        self.world.log.append(f"{who}: crash")
        self.world.loop.run_until_complete(client.die())

    @rule(who=clients, name=st.sampled_from(SENDING), count=st.integers(1, 4))
    def sync_and_die(self, who: str, name: str, count: int) -> None:
        client = self.before(who).client(who)
        client.arm(name, count)
        try:
            self.world.do(client, f"{who}: sync, to die at {name}:{count}", client.sync())
        finally:
            client.disarm()

    @rule(who=clients, op=own_changes, name=st.sampled_from(LOCAL), count=st.integers(1, 3))
    def change_and_die(self, who: str, op: tuple[Any, ...], name: str, count: int) -> None:
        client = self.before(who).client(who)
        client.arm(name, count)
        try:
            self.world.do(client, f"{who}: {op}, to die at {name}:{count}", client.act(op))
        finally:
            client.disarm()

    @rule(who=clients, calls=st.integers(1, 25), how=cuts)
    def sync_and_cut(self, who: str, calls: int, how: str) -> None:
        client = self.before(who).client(who)
        client.way.cut = (calls, how)
        self.world.do(client, f"{who}: sync, cut {how} call {calls}", client.sync())
        client.way.cut = None

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            failed = sys.exc_info()[0] is not None
            if not failed:
                self.world.converge()
        except Broken as broken:
            raise Broken("\n".join([*self.world.log, str(broken)])) from None
        finally:
            self.world.close()


class Apart(Machine):
    """Everybody works beside everybody else."""

    @rule(who=clients, calls=st.integers(1, 20), op=changes)
    def sync_amid(self, who: str, calls: int, op: tuple[Any, ...]) -> None:
        world = self.before(who)
        client = world.client(who)
        world.amid = (calls, op)
        world.do(client, f"{who}: sync", client.sync())
        world.amid = None

    @rule()
    def sync_together(self) -> None:
        world = self.before("")
        world.log.append("all: sync together")
        world.loop.run_until_complete(world.together())
        for client in world.clients.values():
            world._quiet(client)

    @rule(who=clients, number=st.integers(0, 3), keep=st.sampled_from(tuple(Resolution)))
    def resolve(self, who: str, number: int, keep: Resolution) -> None:
        self.before(who).resolve(who, number, keep)

    @rule(
        who=clients,
        number=st.integers(0, 3),
        keep=st.sampled_from(tuple(Resolution)),
        name=st.sampled_from(DECIDING),
    )
    def resolve_and_die(self, who: str, number: int, keep: Resolution, name: str) -> None:
        client = self.before(who).client(who)
        client.arm(name, 1)
        try:
            self.world.resolve(who, number, keep)
        finally:
            client.disarm()


class InTurns(Machine):
    """All is synchronised before another one begins to work."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = "s"

    def before(self, who: str) -> World:
        world = super().before(who)
        if who != self.turn:
            self._hand_over(world)
            self.turn = who
        return world

    def _hand_over(self, world: World) -> None:
        turn = world.clients.get(self.turn)
        order = ([turn] if turn else []) + [c for c in world.clients.values() if c is not turn]
        for client in order:
            if client.held is not None:
                world.do(client, f"{client.name}: release", client.act(("release",)))
            for _ in range(3):
                if world.do(client, f"{client.name}: sync", client.sync()):
                    break
        world.check_no_conflict()

    def teardown(self) -> None:
        if self.world is None:
            return
        if sys.exc_info()[0] is None:
            try:
                self._hand_over(self.world)
            except Broken as broken:
                self.world.close()
                raise Broken("\n".join([*self.world.log, str(broken)])) from None
        super().teardown()


MACHINES = {"apart": Apart, "in-turns": InTurns}
