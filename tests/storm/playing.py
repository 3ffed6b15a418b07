"""One storm from its beginning to its end, in a process of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

from tests.storm import naming, writing
from tests.storm.actors import Actor, OnServer
from tests.storm.checks import check, owed
from tests.storm.ending import bring_to_rest
from tests.storm.faults import strike
from tests.storm.plan import Plan
from tests.storm.world import World

CALM_S = 2.5
"""The longest time between two faults."""
HANGS_S = 40.0
"""An operation that takes longer hangs, whatever happens to server and daemon."""
END_S = 60.0
"""What the last operation may take when all is to end."""
PINNED_SHARE = 0.6


def play(plan: Plan, base: str) -> None:
    """Play it below ``base``; ends the process with 1 if something was found."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    world = World(plan, base)
    actors: list[Actor] = []
    try:
        _weather(world, actors)
        bring_to_rest(world)
        check(world)
    except Exception:
        world.record.problem("the storm cannot go on:", traceback.format_exc())
        world.show_stacks()
    finally:
        for actor in actors:
            actor.stopped = True
        world.close()
    print(_summary(world, actors), flush=True)
    sys.exit(1 if world.record.problems else 0)


def _weather(world: World, actors: list[Actor]) -> None:
    draw = random.Random(f"faults-{world.plan.seed}")
    for client in world.clients:
        world.mount(client)
        bounded = "cache-size" in world.plan.options_of(client.name)
        if draw.random() < PINNED_SHARE and not bounded:
            world.command(client, "pin", client.mountpoint)
    actors += [Actor(world, client.name[0], client.mountpoint) for client in world.clients]
    if "server" in world.plan.actors:
        actors.append(OnServer(world, "s", world.server.root))
    threads = _begun(world, actors)
    _strike_until(world, actors, draw, time.monotonic() + world.plan.seconds)
    _join(world, actors, threads)


def _begun(world: World, actors: list[Actor]) -> list[threading.Thread]:
    operations = {
        name: operation
        for name, operation in (writing.OPERATIONS | naming.OPERATIONS).items()
        if name in (world.plan.operations or (name,))
    }
    threads = [
        threading.Thread(target=actor.work, args=(operations,), daemon=True) for actor in actors
    ]
    for thread in threads:
        thread.start()
    return threads


def _strike_until(world: World, actors: list[Actor], draw: random.Random, end: float) -> None:
    hanging: set[tuple[str, float]] = set()
    while time.monotonic() < end:
        time.sleep(draw.random() * CALM_S)
        for actor in actors:
            doing = actor.doing
            if doing is None or doing in hanging or time.monotonic() - doing[1] < HANGS_S:
                continue
            hanging.add(doing)
            world.record.problem("hangs:", actor.letter, doing[0])
            world.show_stacks()
        try:
            strike(world, draw)
        except subprocess.TimeoutExpired as error:
            world.record.problem("a command hangs:", error)
            world.show_stacks()


def _join(world: World, actors: list[Actor], threads: list[threading.Thread]) -> None:
    for actor in actors:
        actor.stopped = True
    for actor, thread in zip(actors, threads, strict=True):
        thread.join(END_S)
        if thread.is_alive():
            world.record.problem("hangs at the end:", actor.letter, actor.doing)
            world.show_stacks()
    for actor in actors:
        told = (actor.letter, actor.operations, dict(actor.errors), actor.slow)
        world.record.log("did", *told)


def _summary(world: World, actors: list[Actor]) -> str:
    done = " + ".join(f"{actor.operations}" for actor in actors)
    return (
        f"{os.path.basename(world.base)}: {world.record.elapsed:.0f} s, {done} operations, "
        f"{owed(world.ledger)} of {len(world.ledger.written)} tokens owed, "
        f"conflicts {dict(world.conflicts)}, {len(world.record.problems)} problems"
    )
