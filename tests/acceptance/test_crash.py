"""kill -9 at any moment: nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from awayfs.volume.fault import NAMES
from tests.acceptance.crash import Crashes
from tests.harness import mounted, needs_fuse, run

pytestmark = [*needs_fuse, pytest.mark.slow]

SEED = int(os.environ.get("AWAYFS_SEED", "20"))
FACTOR = float(os.environ.get("AWAYFS_CRASHES", "1"))
DAEMON_KILLS = {"dir": int(50 * FACTOR), "sftp": int(26 * FACTOR)}
ROUND = 12
"""Kills between two times that all is sent and compared."""
LOCAL = [name for name in NAMES if name.startswith(("changes.", "files.", "sync."))]
SENDING = [name for name in NAMES if name.startswith("replay.") and name != "replay.reviving"]


@pytest.fixture(params=["dir", "sftp"])
def crashes(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Crashes]:
    """A mounted and pinned volume that was not empty."""
    with mounted(request.param, str(tmp_path)) as client:
        crashes = Crashes(client, str(tmp_path), SEED)
        try:
            _fill(client.server.root, crashes.mirror)
            client.awayfs("pin", client.mountpoint)
            crashes.check_mount()
            yield crashes
        finally:
            crashes.close()
            print(f"\n{request.param}: {dict(crashes.kills)}, {crashes.operations} operations")


def _fill(server: str, mirror: str) -> None:
    """The same files on the server and in the mirror."""
    rng = random.Random(SEED)
    os.makedirs(f"{server}/old/deep")
    for number, place in enumerate(("", "old/", "old/deep/")):
        for size in (0, 3000, 150_000):
            with open(f"{server}/{place}f{number}-{size}", "wb") as file:
                file.write(rng.randbytes(size))
    os.symlink("f0-3000", f"{server}/pointer")
    run("cp", "-a", f"{server}/.", mirror)


@pytest.mark.timeout(1200)  # a hundred mounts: on a busy machine five minutes are not enough
def test_killed_daemon(crashes: Crashes) -> None:
    """At random moments and at named places, offline and while it sends."""
    rng = random.Random(SEED)
    for number in range(DAEMON_KILLS[crashes.client.server.scheme]):
        online = number % ROUND >= ROUND // 2
        crashes.ask("online" if online else "offline")
        crashes.work(rng.randint(0, 10))
        crashes.clear()
        fault = rng.choice(["", *(SENDING if online else LOCAL)])
        crashes.mount_and_check(fault and f"{fault}:{rng.randint(1, 6)}")
        crashes.work_and_die(fault, rng.uniform(0.01, 0.5 if fault else 0.2))
        crashes.mount_and_check()
        if number % ROUND == ROUND - 1:
            crashes.check_server()
    crashes.check_server()
    crashes.check_store()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("crashes", ["dir", "sftp"], indirect=True)
def test_killed_worker_process(crashes: Crashes) -> None:
    """The adapter's process dies during replay: what it had under way is settled."""
    for _ in range(int(8 * FACTOR)):
        crashes.work_beside(250, crashes.kill_worker, 0.3)
        crashes.check_mount()
    crashes.check_server()
    crashes.check_store()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("crashes", ["sftp"], indirect=True)
def test_killed_session(crashes: Crashes) -> None:
    """The server's side of the session dies during replay: answers are lost."""
    for _ in range(int(8 * FACTOR)):
        crashes.work_beside(250, crashes.kill_session, 0.3)
        crashes.check_mount()
    crashes.check_server()
    crashes.check_store()
