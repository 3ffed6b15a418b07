"""The rules: what may happen, and how often.

``Apart`` lets everybody work beside everybody else (``decided`` goes further). In ``InTurns`` all
is synchronised whenever another one begins to work, so that there is never a conflict; in
``Parts``, too, but before that single subtrees are sent.

Hypothesis's state machines were tried first: most of their sequences hold hardly an operation
that does something, let alone two that clash. A plain generator finds in seconds what they did
not find in minutes; ``script`` shrinks what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from awayfs.core.conflicts import Resolution
from awayfs.volume.fault import NAMES
from tests.model.acknowledged import Acknowledged
from tests.model.world import World

Op = tuple[Any, ...]
Chooser = Callable[[Random], Any]

FILES = ("a", "b", "d/a", "d/b", "e/a")
DIRECTORIES = ("d", "e", "d/e")
PATHS = FILES + DIRECTORIES
LOCAL = tuple(name for name in NAMES if name.startswith(("journal.", "changes.", "files.")))
SENDING = tuple(name for name in NAMES if name.startswith(("replay.", "parking.", "fetch.")))
DECIDING = tuple(name for name in NAMES if name.startswith("resolve."))
START = (
    ("mkdir", "d"),
    ("mkdir", "e"),
    ("mkdir", "d/e"),
    ("write", "a", "create"),
    ("write", "b", "create"),
    ("write", "d/a", "create"),
    ("write", "d/b", "create"),
    ("write", "e/a", "create"),
)


def one(*values: Any) -> Chooser:
    """One of these."""
    return lambda rng: rng.choice(values)


def upto(most: int) -> Chooser:
    """A number from 1."""
    return lambda rng: rng.randint(1, most)


def some(chooser: Chooser, most: int) -> Chooser:
    """A list of at least one."""
    return lambda rng: [chooser(rng) for _ in range(rng.randint(1, most))]


def operation(name: str, *arguments: Chooser) -> Chooser:
    return lambda rng: (name, *(choose(rng) for choose in arguments))


anywhere, files, directories = one(*PATHS), one(*FILES), one(*DIRECTORIES)
CHANGES = (
    operation("write", files, one("new", "append", "middle", "truncate")),
    operation("write", files, one("append", "new")),
    operation("write", files, one("append", "new")),
    operation("write", files, one("create")),
    operation("save", files, one("over", "backup")),
    operation("save", files, one("over")),
    operation("mkdir", directories),
    operation("unlink", files),
    operation("unlink", files),
    operation("rmdir", directories),
    operation("remove", directories),
    operation("retype", anywhere),
    operation("rename", files, files),
    operation("rename", directories, directories),
    operation("rename", anywhere, anywhere),
    operation("exchange", anywhere, anywhere),
    operation("link", files, files),
    operation("symlink", files, one("a", "x")),
    operation("chmod", anywhere, one(0o600, 0o640)),
    operation("utime", files),
    operation("xattr", anywhere, one("x", "y")),
)
HELD = (
    operation("hold", files),
    operation("scribble"),
    operation("release"),
    operation("read", files),
)


def any_of(*choosers: Chooser) -> Chooser:
    return lambda rng: rng.choice(choosers)(rng)


changes = some(any_of(*CHANGES), 4)
own_changes = some(any_of(*CHANGES, *HELD), 4)
clients = one("a", "b")
cuts = one("before", "after", "inside1", "inside2", "inside3")


def rule(weight: int, **choosers: Chooser) -> Callable[[Any], Any]:
    """Have the generator call a method, so often, with arguments chosen like this."""

    def mark(method: Any) -> Any:
        method.rule = (weight, choosers)
        return method

    return mark


class Machine:
    """What both kinds of run have in common."""

    def __init__(self) -> None:
        self.world: World = None  # type: ignore[assignment]

    def begin(
        self, without: list[str], decisions: int, always: str | None = None, *, ids: bool = True
    ) -> None:
        """What is on the server at first; ``decisions`` seeds those of the end. ``ids``: whether
        the server tells objects apart."""
        self.world = World(decisions, always, ids=ids)
        for op in START:
            if op[1] not in without:
                self.world.serve(op)

    def before(self, who: str) -> World:
        """Called before somebody works."""
        return self.world

    def after(self, who: str) -> None:
        """Called after a client changed something."""

    def finish(self) -> None:
        """Everything that must hold at the end."""
        self.world.converge()

    def end(self) -> None:
        """Take everything away."""
        if self.world is not None:
            self.world.close()

    @rule(3, ops=changes)
    def server(self, ops: list[Op]) -> None:
        world = self.before("s")
        for op in ops:
            world.serve(op)

    @rule(6, who=clients, ops=own_changes)
    def change(self, who: str, ops: list[Op]) -> None:
        world = self.before(who)
        for op in ops:
            world.act(who, op)
        self.after(who)

    @rule(4, who=clients, ops=own_changes)
    def work_offline(self, who: str, ops: list[Op]) -> None:
        self.offline(who)
        self.change(who, ops)

    @rule(3, who=clients)
    def sync(self, who: str) -> None:
        client = self.before(who).client(who)
        self.world.do(client, f"{who}: sync", client.sync())

    @rule(2, who=clients)
    def drain(self, who: str) -> None:
        client = self.before(who).client(who)
        if client.online:
            self.world.do(client, f"{who}: drain", client.drain())

    @rule(1, who=clients)
    def offline(self, who: str) -> None:
        world = self.before(who)
        world.client(who).go_offline()
        world.log.append(f"{who}: offline")

    @rule(1, who=clients)
    def crash(self, who: str) -> None:
        client = self.before(who).client(who)
        self.world.log.append(f"{who}: crash")
        self.world.loop.run_until_complete(client.die())

    @rule(3, who=clients, name=one(*SENDING), count=upto(4))
    def sync_and_die(self, who: str, name: str, count: int) -> None:
        client = self.before(who).client(who)
        client.arm(name, count)
        try:
            self.world.do(client, f"{who}: sync, to die at {name}:{count}", client.sync())
        finally:
            client.disarm()

    @rule(2, who=clients, ops=own_changes, name=one(*LOCAL), count=upto(3))
    def change_and_die(self, who: str, ops: list[Op], name: str, count: int) -> None:
        client = self.before(who).client(who)
        client.arm(name, count)
        try:
            for op in ops:
                self.world.do(client, f"{who}: {op}, to die at {name}:{count}", client.act(op))
        finally:
            client.disarm()
        self.after(who)

    @rule(3, who=clients, calls=upto(25), how=cuts)
    def sync_and_cut(self, who: str, calls: int, how: str) -> None:
        client = self.before(who).client(who)
        client.way.cut = (calls, how)
        self.world.do(client, f"{who}: sync, cut {how} call {calls}", client.sync())
        client.way.cut = None


class Apart(Machine):
    """Everybody works beside everybody else."""

    @rule(20, who=clients, ours=changes, by=one("s", "a", "b"), theirs=changes)
    def clash(self, who: str, ours: list[Op], by: str, theirs: list[Op]) -> None:
        """Both work from the same state on."""
        self.work_offline(who, ours)
        if by in ("s", who):
            self.server(theirs)
        else:
            self.change(by, theirs)
            self.sync(by)
        self.sync(who)

    @rule(4, who=clients, calls=upto(20), op=any_of(*CHANGES))
    def sync_amid(self, who: str, calls: int, op: Op) -> None:
        """Somebody works on the server while a client synchronises."""
        client = self.world.client(who)
        self.world.amid = (calls, op)
        self.world.do(client, f"{who}: sync", client.sync())
        self.world.amid = None

    @rule(2)
    def sync_together(self) -> None:
        self.world.log.append("all: sync together")
        self.world.loop.run_until_complete(self.world.together())
        for client in self.world.clients.values():
            self.world.quiet(client)

    @rule(3, who=clients, number=upto(3), keep=one("local", "server", "both"))
    def resolve(self, who: str, number: int, keep: str) -> None:
        self.world.resolve(who, number, Resolution(keep))

    @rule(2, who=clients, number=upto(3), keep=one("local", "server", "both"), name=one(*DECIDING))
    def resolve_and_die(self, who: str, number: int, keep: str, name: str) -> None:
        client = self.world.client(who)
        client.arm(name, 1)
        try:
            self.world.resolve(who, number, Resolution(keep))
        finally:
            client.disarm()


class InTurns(Machine):
    """All is synchronised before another one begins to work, and what was done stands then."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = "s"
        self.acknowledged: Acknowledged | None = None

    def before(self, who: str) -> World:
        if who != self.turn:
            self._hand_over()
            self.turn = who
            self.acknowledged = None
        return self.world

    def after(self, who: str) -> None:
        """Whatever is cut off and sent again from now on, this is what all are to have."""
        self.acknowledged = Acknowledged.of(self.world.client(who))

    def _hand_over(self) -> None:
        clients = self.world.clients
        for client in sorted(clients.values(), key=lambda c: c.name != self.turn):
            if client.held is not None:
                self.world.act(client.name, ("release",))
            for _ in range(3):
                if self.world.do(client, f"{client.name}: sync", client.sync()):
                    break
        self.world.check_no_conflict()
        if self.acknowledged is not None:
            self.world.check_stands(self.acknowledged)

    def finish(self) -> None:
        self._hand_over()
        super().finish()


class Parts(InTurns):
    """Subtrees are sent by themselves, one after the other and with others' deaths between."""

    @rule(20, who=clients, ops=own_changes, path=anywhere)
    def send_part(self, who: str, ops: list[Op], path: str) -> None:
        """Of what was changed offline only a subtree is sent, with what it needs."""
        self.work_offline(who, ops)
        client = self.world.client(who)
        self.world.do(client, f"{who}: sync {path}", client.sync_part(path))

    @rule(10, who=clients, ops=own_changes, path=anywhere, name=one(*SENDING), count=upto(3))
    def send_part_and_die(self, who: str, ops: list[Op], path: str, name: str, count: int) -> None:
        self.work_offline(who, ops)
        client = self.world.client(who)
        client.arm(name, count)
        what = f"{who}: sync {path}, to die at {name}:{count}"
        try:
            self.world.do(client, what, client.sync_part(path))
        finally:
            client.disarm()
