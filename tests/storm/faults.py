"""What befalls a storm: each fault meets one client, or the server.

A fault leaves the world in order, but for what it is about: a killed daemon is followed by another,
a server that was cut off stays so until the next cut.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.harness import Client, SftpServer
from tests.storm.plan import ALL_FAULTS
from tests.storm.world import World

Fault = Callable[[World, Client, random.Random], None]
STOPPED_S = 4.0
"""How long at most the server says nothing."""


def kill(world: World, client: Client, draw: random.Random) -> None:
    """SIGKILL for the daemon; another one follows."""
    client.kill()
    time.sleep(draw.random())
    world.mount(client)


def cut(world: World, client: Client, draw: random.Random) -> None:
    """The server is gone, or is there again."""
    if world.is_cut:
        world.restore()
    else:
        world.cut()


def session(world: World, client: Client, draw: random.Random) -> None:
    """All connections to the server are lost."""
    world.kill_sessions()


def stop(world: World, client: Client, draw: random.Random) -> None:
    """The server is connected and silent, for a while."""
    if world.sessions() and isinstance(world.server, SftpServer):
        world.server.sshd.freeze()
        time.sleep(draw.random() * STOPPED_S)
        world.server.sshd.thaw()


def hand(world: World, client: Client, draw: random.Random) -> None:
    """A person sets the mode."""
    mode = draw.choice(("offline", "offline", "auto", "online"))
    world.command(client, mode, client.mountpoint)


def remount(world: World, client: Client, draw: random.Random) -> None:
    """Unmounted in good order, which a program at work may refuse; then mounted again."""
    world.command(client, "umount", client.mountpoint)
    if not client.is_mounted() or not client.pid:
        world.mount(client)


def cull(world: World, client: Client, draw: random.Random) -> None:
    """The cache gives up what can be fetched again."""
    world.command(client, "cull", client.mountpoint)


def sync(world: World, client: Client, draw: random.Random) -> None:
    """A person has all sent."""
    world.command(client, "sync", client.mountpoint)


def worker(world: World, client: Client, draw: random.Random) -> None:
    """SIGKILL for the process that speaks to the server."""
    world.kill_workers(client)


def resolve(world: World, client: Client, draw: random.Random) -> None:
    """A person decides all conflicts that there are."""
    world.command(client, "resolve", "--keep", "both", client.mountpoint)


FAULTS: dict[str, Fault] = {
    function.__name__: function
    for function in (kill, cut, session, stop, hand, remount, cull, sync, worker, resolve)
}
assert FAULTS.keys() == set(ALL_FAULTS)


def strike(world: World, draw: random.Random) -> None:
    """One of the planned faults, for one of the clients."""
    name, client = draw.choice(world.plan.faults), draw.choice(world.clients)
    world.record.log("FAULT", name, client.name)
    FAULTS[name](world, client, draw)
