"""Watching over one storm from another process: it ends in time, and nothing of it stays.

A program that writes through a mapping of a file that somebody else shortens is killed by the
kernel, and one that reads from a daemon that hangs waits for ever; so a storm is a process.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from multiprocessing.process import BaseProcess

from tests.harness import Client, DirServer, can_mount
from tests.sshd import SSHD
from tests.storm.plan import Plan
from tests.storm.playing import play
from tests.storm.world import clients_of, end, sealed, show_stacks

LONGEST_S = 480.0
"""Beside the storm itself."""
RELEASED_S = 20.0
"""What a storm takes to end whose daemons are killed."""
FINDING = 1
_SPAWNED = multiprocessing.get_context("spawn")


def unfit(kind: str) -> str:
    """Why no storm can be played here; nothing if it can."""
    if os.geteuid() != 0 or not can_mount:
        return "a storm needs root and /dev/fuse"
    if kind != "dir" and not os.access(SSHD, os.X_OK):
        return "there is no OpenSSH server here (Debian: apt install openssh-server)"
    with tempfile.TemporaryDirectory(prefix="awayfs-storm-") as base:
        try:
            sealed(base, True)
            sealed(base, False)
        except OSError as error:
            return f"{base}: not on a file system with immutable directories ({error}); set TMPDIR"
    return ""


def weathered(plan: Plan) -> bool:
    """Play a storm; whether nothing was found. What it leaves is told, else all is removed."""
    print("##", plan.command, flush=True)
    base = tempfile.mkdtemp(prefix=f"awayfs-storm-{plan.kind}-{plan.seed}-")
    player = _SPAWNED.Process(target=play, args=(plan, base))
    player.start()
    try:
        _watch(player, plan, base)
        _end(player, plan, base)
    except BaseException:  # somebody wants this to end, and knows no more of it than we do
        _end(player, plan, base)
        shutil.rmtree(base)
        raise
    if player.exitcode == 0:
        shutil.rmtree(base)
        return True
    if player.exitcode != FINDING:
        print(f"PROBLEM the storm ended with {player.exitcode}", flush=True)
    print(f"kept: {base}", flush=True)
    return False


def _watch(player: BaseProcess, plan: Plan, base: str) -> None:
    player.join(plan.seconds + LONGEST_S)
    if player.is_alive():
        print(f"PROBLEM not over after {plan.seconds + LONGEST_S:.0f} s", flush=True)
        show_stacks(_clients(plan, base))


def _end(player: BaseProcess, plan: Plan, base: str) -> None:
    """Whatever runs or is mounted still, also when this program is to end."""
    if player.is_alive():
        player.terminate()
        player.join(RELEASED_S)
    end(_clients(plan, base))
    if player.is_alive():
        player.join(RELEASED_S)
    if player.is_alive():
        player.kill()
        player.join()
        end(_clients(plan, base))


def _clients(plan: Plan, base: str) -> list[Client]:
    """The clients of a storm that another process plays; of the server they need no more."""
    return clients_of(base, DirServer(base), plan)
