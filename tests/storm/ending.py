"""The end of a storm: the weather clears, and everything comes to rest.

All is sent and every conflict decided, on both sides in turn, until twice nothing was left to do.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from typing import Any

from tests.harness import Client, alive
from tests.storm.actors import content
from tests.storm.ledger import tokens_in
from tests.storm.world import World

ROUNDS = 40
TROUBLED_ROUNDS = 8
"""How long daemons and sessions are killed on, where that was planned."""
ANSWERS_BY = 9
"""A round after this one must not fail."""
SYNC_S = 300.0
AT_REST = ("connected", "write-behind")
BRAKE = "accept-deletions"
"""What the cause says when a person has to confirm that so much is gone."""


def clear_up(world: World) -> None:
    """Server and mounts are there, and nobody is offline by hand."""
    world.restore()
    for client in world.clients:
        if not client.pid or not client.is_mounted() or not alive(client.pid):
            client.clear()
            world.mount(client)
    for client in world.clients:
        world.command(client, "online", client.mountpoint)
        world.command(client, "auto", client.mountpoint)


class Trouble:
    """What goes on while all is sent already: daemons and sessions die."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if world.plan.killed_to_the_end:
            self._thread.start()
        else:
            self._over.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self._over.is_set()

    def stop(self) -> None:
        """Nothing more happens from now on."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def end(self) -> None:
        """The same, and what was set back meanwhile goes on."""
        if self.is_over:
            return
        self.stop()
        self._world.record.log("the trouble is over")
        for client in self._world.clients:
            self._world.command(client, "auto", client.mountpoint)

    def _run(self) -> None:
        world, draw = self._world, random.Random(f"trouble-{self._world.plan.seed}")
        while not self._over.wait(draw.random() * 3):
            client = draw.choice(world.clients)
            world.record.log("TROUBLE", client.name)
            if draw.random() < 0.6:
                client.kill()
                world.mount(client)
            else:
                world.kill_sessions()


def bring_to_rest(world: World) -> None:
    """Send and decide until two rounds in a row find nothing to do."""
    clear_up(world)
    trouble = Trouble(world)
    try:
        _until_quiet(world, trouble)
    finally:
        trouble.stop()


def _until_quiet(world: World, trouble: Trouble) -> None:
    quiet = 0
    for number in range(ROUNDS):
        if number == TROUBLED_ROUNDS:
            trouble.end()
        left = sum(_rounded(world, client, number, trouble) for client in world.clients)
        quiet = 0 if left else quiet + 1
        if quiet >= 2 and trouble.is_over:
            return
        if trouble.is_over:
            time.sleep(0.3)
    pending = [client.ask("status")["pending"] for client in world.clients]
    world.record.problem("never quiet:", pending, [c.conflicts() for c in world.clients])
    for client in world.clients:
        world.command(client, "journal", "list", "-m", client.mountpoint)
        world.command(client, "why", client.mountpoint)


def _rounded(world: World, client: Client, number: int, trouble: Trouble) -> int:
    """Send and decide what one client has; how much there was to do, or went wrong."""
    try:
        return _settled(world, client, number)
    except subprocess.TimeoutExpired as error:
        world.record.problem("sync hangs:", client.name, number, error)
        world.show_stacks()
    except (OSError, AssertionError) as error:
        world.record.log("round", number, client.name, error)
        if trouble.is_over and number > ANSWERS_BY:
            world.record.problem("round", number, client.name, error)
    return 1


def _settled(world: World, client: Client, number: int) -> int:
    world.command(client, "sync", client.mountpoint, "--wait", timeout=SYNC_S)
    status = client.ask("status")
    pending, cause = status["pending"], status["cause"] or ""
    told = (status["mode"], cause, pending, status["conflicts"])
    world.record.log("STATUS", client.name, number, *told)
    left = 0
    if status["mode"] not in AT_REST:
        left = 1
        time.sleep(1)
        accept_deletions(world, client, cause)
    decided = _decide_all(world, client)
    return left + decided + int(pending["records"]) + int(pending["parked"])


def accept_deletions(world: World, client: Client, cause: str, *more: str) -> bool:
    """Confirm what a brake asks; whether one does."""
    if BRAKE not in cause:
        return False
    world.record.log("BRAKE", client.name, cause)
    world.command(client, "sync", client.mountpoint, "--accept-deletions", *more)
    return True


def _decide_all(world: World, client: Client) -> int:
    """Decide all conflicts as planned, and by other means what is left; how many there were."""
    conflicts = client.conflicts()
    if not conflicts:
        return 0
    world.record.log("CONFLICTS", client.name, str(conflicts)[:3000])
    world.conflicts.update(conflict["kind"] for conflict in conflicts)
    world.command(client, "resolve", "--keep", world.plan.keep, client.mountpoint)
    left = client.conflicts()
    if left and _ids(left) == _ids(conflicts):
        for conflict in left:
            path = os.path.join(client.mountpoint, conflict["path"])
            world.command(client, "resolve", "--keep", "local", path)
        last = client.conflicts()
        if _ids(last) == _ids(conflicts):
            for conflict in last:
                _give_in(world, client, conflict)
    return len(conflicts)


def _ids(conflicts: list[dict[str, Any]]) -> list[int]:
    return [conflict["id"] for conflict in conflicts]


def _give_in(world: World, client: Client, conflict: dict[str, Any]) -> None:
    """What cannot be decided otherwise: the local side is given up, and so is what it holds."""
    for path in ((conflict.get("local") or {}).get("path"), conflict["path"]):
        try:
            tokens = tokens_in(content(os.fsencode(os.path.join(client.mountpoint, path or ""))))
        except OSError as error:
            world.record.log("unreadable:", error)
            continue
        world.ledger.give_up(tokens, "the server's side, as the last resort")
        break
    world.record.log("LAST RESORT", client.name, conflict)
    path = os.path.join(client.mountpoint, conflict["path"])
    world.command(client, "resolve", "--keep", "server", path)
