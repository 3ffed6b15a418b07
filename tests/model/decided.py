"""Decisions, discarding and taking back at any time, a server that refuses, and content that goes.

Everybody works beside everybody else, as in ``Apart``. What a client is asked for while it does
something else is begun at a turn of that (``beside``). Nothing that a decision gives up may be
lost: it is in the history then.
"""

from __future__ import annotations

import errno
from random import Random
from typing import Any

from awayfs.volume import discard, replay, replay_waits
from tests.model.machine import (
    CHANGES,
    DECIDING,
    FILES,
    HELD,
    SENDING,
    Apart,
    Op,
    any_of,
    clients,
    cuts,
    one,
    operation,
    own_changes,
    rule,
    some,
    upto,
)
from tests.model.remote import Refusal

Beside = tuple[int, str, Op]
"""After so many turns, the client itself or somebody else (``s``) does something."""
Contest = tuple[str, Op]
SHORT_S = 0.002
CODES = (errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.ENAMETOOLONG, errno.EIO)
choices = one("local", "server", "both", "base")
codes = one(*(errno.errorcode[code] for code in CODES))
times = upto(3)
insides = one(0, 0, 0, 1, 2, 3)
DECISIONS = (
    operation("decide", upto(3), choices),
    operation("decide", upto(3), choices),
    operation("discard", one(0, 1, 2, 3, 4, 5, -1)),
    operation("drop", upto(5)),
    operation("undo", upto(5), one(False, True)),
    operation("cull"),
)
OF_A_PATH = (
    lambda path: ("write", path, "append"),
    lambda path: ("write", path, "new"),
    lambda path: ("write", path, "middle"),
    lambda path: ("save", path, "over"),
    lambda path: ("save", path, "backup"),
    lambda path: ("unlink", path),
    lambda path: ("retype", path),
    lambda path: ("chmod", path, 0o600),
    lambda path: ("utime", path),
    lambda path: ("rename", path, "b" if path == "a" else "a"),
    lambda path: ("rename", path, "d/c"),
    lambda path: ("exchange", path, "e/a" if path == "d/a" else "d/a"),
)


def _beside(rng: Random) -> Beside:
    turns = rng.choice((rng.randint(1, 6), rng.randint(1, 20), rng.randint(1, 50)))
    kind = rng.random()
    if kind < 0.15:
        return turns, "s", any_of(*CHANGES)(rng)
    return turns, "", any_of(*(DECISIONS if kind < 0.6 else (*CHANGES, *HELD)))(rng)


def _contest(rng: Random) -> list[Contest]:
    """What is done to one file or two, here and there."""
    found: list[Contest] = []
    for path in rng.sample(FILES, rng.choice((1, 1, 2))):
        found += [("", rng.choice(OF_A_PATH)(path)), ("s", rng.choice(OF_A_PATH)(path))]
        if rng.random() < 0.2:
            found.append(("", any_of(*CHANGES)(rng)))
    return found


asides = some(_beside, 3)
decisions = any_of(*DECISIONS)


class Decided(Apart):
    """Everybody decides whenever they like, and a server says no."""

    def begin(self, *args: Any, **more: Any) -> None:
        super().begin(*args, **more)
        self.world.have_instead(
            (discard, "LOOK_S", SHORT_S),
            (replay, "FAILED_PAUSE_S", SHORT_S),
            (replay_waits, "WAIT_S", SHORT_S),
            (replay_waits, "FAILED_WAIT_S", SHORT_S),
        )

    @rule(20, who=clients, contest=_contest)
    def contend(self, who: str, contest: list[Contest]) -> None:
        """Both do something to one file, so that there is something to decide."""
        self.work_offline(who, [op for by, op in contest if by != "s"])
        self.server([op for by, op in contest if by == "s"])
        self.sync(who)

    @rule(10, who=clients, contest=_contest, choice=choices, force=one(False, True))
    def take_back(self, who: str, contest: list[Contest], choice: str, force: bool) -> None:
        self.contend(who, contest)
        self.world.act(who, ("decide", 1, choice))
        self.world.act(who, ("undo", -1, force))

    def _sync(self, who: str, what: str = "") -> None:
        client = self.world.client(who)
        self.world.do(client, f"{who}: sync beside{what}", client.sync_beside())

    @rule(20, who=clients, contest=_contest, ours=own_changes, beside=asides)
    def sync_beside(
        self, who: str, contest: list[Contest], ours: list[Op], beside: list[Beside]
    ) -> None:
        """What was done offline goes out, while more is done here and there.

        There may be something to decide from before, or there will be.
        """
        if contest:
            self.contend(who, contest)
        self.work_offline(who, ours)
        self._have(who, beside)
        self._sync(who)

    @rule(20, who=clients, contest=_contest, op=decisions, beside=asides)
    def decide_beside(self, who: str, contest: list[Contest], op: Op, beside: list[Beside]) -> None:
        self._begin_with(who, contest, op)
        self._have(who, beside)
        self.world.act(who, op)

    @rule(16, who=clients, contest=_contest, op=decisions)
    def decide(self, who: str, contest: list[Contest], op: Op) -> None:
        self._begin_with(who, contest, op)
        self.world.act(who, op)

    @rule(
        8, who=clients, ours=own_changes, calls=upto(25), code=codes, inside=insides, times=upto(3)
    )
    def sync_refused(
        self, who: str, ours: list[Op], calls: int, code: str, inside: int, times: int
    ) -> None:
        self.work_offline(who, ours)
        self._refuse(who, calls, code, inside, times)
        self._sync(who, f", {code}")
        self.world.client(who).way.refusal = None

    @rule(
        8,
        who=clients,
        contest=_contest,
        op=decisions,
        calls=upto(8),
        code=codes,
        inside=insides,
        times=times,
    )
    def decide_refused(
        self,
        who: str,
        contest: list[Contest],
        op: Op,
        calls: int,
        code: str,
        inside: int,
        times: int,
    ) -> None:
        self._begin_with(who, contest, op)
        self._refuse(who, calls, code, inside, times)
        self.world.act(who, op)
        self._sync(who, f", {code}")
        self.world.client(who).way.refusal = None

    @rule(8, who=clients, contest=_contest, op=decisions, calls=upto(8), how=cuts)
    def decide_cut(self, who: str, contest: list[Contest], op: Op, calls: int, how: str) -> None:
        self._begin_with(who, contest, op)
        client = self.world.client(who)
        client.way.cut = (calls, how)
        self.world.act(who, op)
        client.way.cut = None

    @rule(3, who=clients, contest=_contest, op=decisions, name=one(*DECIDING, *SENDING))
    def decide_and_die(self, who: str, contest: list[Contest], op: Op, name: str) -> None:
        self._begin_with(who, contest, op)
        client = self.world.client(who)
        client.arm(name, 1)
        try:
            self.world.act(who, op)
        finally:
            client.disarm()

    @rule(2, who=clients, ours=own_changes)
    def cull_offline(self, who: str, ours: list[Op]) -> None:
        """What is here of what was worked on stays."""
        self.work_offline(who, ours)
        self.world.act(who, ("cull",))

    def _begin_with(self, who: str, contest: list[Contest], op: Op) -> None:
        """Have something to decide, or that was decided."""
        client = self.world.client(who)
        if contest:
            self.contend(who, contest)
            if op[0] == "undo":
                self.world.act(who, ("decide", 1, "local"))
        elif not client.online:
            self.world.do(client, f"{who}: online", client.go_online())

    def _have(self, who: str, beside: list[Beside]) -> None:
        self.world.beside.have([(turns, by or who, op) for turns, by, op in beside])

    def _refuse(self, who: str, calls: int, code: str, inside: int, times: int) -> None:
        refusal = Refusal(calls, getattr(errno, code), inside, times)
        self.world.client(who).way.refusal = refusal
        where = f" at {inside}" if inside else ""
        self.world.log.append(f"{who}: {times} refusals with {code}{where} from call {calls} on")
