"""A small storm, so that the command works whenever it is needed, and what its judges find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import needs_fuse
from tests.storm.checks import check
from tests.storm.keeper import unfit
from tests.storm.ledger import block
from tests.storm.plan import Plan
from tests.storm.world import World

UNFIT = unfit("dir")
pytestmark = [*needs_fuse, pytest.mark.skipif(bool(UNFIT), reason=UNFIT)]


def test_a_small_storm_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """``python -m tests.storm`` looks further."""
    command = [sys.executable, "-m", "tests.storm", "--kind", "dir", "--seed", "1"]
    done = subprocess.run(
        [*command, "--seconds", "2", "--actors", "ann,server"],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.listdir(tmp_path) == []


def test_what_is_lost_torn_or_left_over_is_found(tmp_path: Path) -> None:
    world = World(Plan("dir", 1, actors=("ann",)), str(tmp_path))
    (client,) = world.clients
    try:
        world.mount(client)
        world.ledger.wrote(world.ledger.new("a"), 2, b"gone")
        with open(client.path("torn"), "wb") as file:
            file.write(block(b"<a999999>")[5:])
        world.command(client, "sync", client.mountpoint, "--wait")
        Path(world.server.root, ".awayfs-left").touch()
        check(world)
        assert sorted(problem.split(" ")[0] for problem in world.record.problems) == [
            *("LOST", "left", "torn:")
        ]
    finally:
        world.close()
