"""Power cuts, full disks and damaged databases, on real mounts.

A power cut is played by what the next start sees of one: the state of a daemon that did not
end in order, with the mark of another boot. What the page cache would have lost is still
there, so what is tested is that it is not trusted.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.harness import Client, eventually, make_server, needs_fuse, run

pytestmark = [*needs_fuse, pytest.mark.slow]

ANOTHER_BOOT = "00000000-0000-0000-0000-000000000000"
FSYNC = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
os.write(fd, b"to be kept")
os.fsync(fd)
print(repr(time.time()))
"""
FILL = """
import errno, os, sys
written = 0
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
try:
    while written < 64 << 20:
        written += os.write(fd, b"%08d" % (written // 8) * 512)
except OSError as error:
    print(error.errno, written)
"""


@pytest.fixture
def client(tmp_path: object) -> Iterator[Client]:
    """A volume with a file, all of it here, offline."""
    server = make_server("dir", str(tmp_path))
    write(f"{server.root}/doc", "settled\n")
    client = Client(str(tmp_path), server)
    try:
        client.mount()
        client.awayfs("pin", client.mountpoint)
        client.offline()
        yield client
    finally:
        client.close()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def text(path: str) -> str:
    """Whatever a file holds."""
    with open(path, errors="replace") as file:
        return file.read()


def state_of(client: Client) -> str:
    (volume,) = glob.glob(f"{client.state}/awayfs/volumes/*/")
    return volume.rstrip("/")


def cut_power(client: Client) -> None:
    """The daemon ends at once, and the machine starts anew."""
    client.kill()
    marker = f"{state_of(client)}/running"
    assert os.path.exists(marker)
    write(marker, ANOTHER_BOOT)


# -- power cuts -------------------------------------------------------------------------------


def test_unsynced_edit_of_a_settled_file_is_parked(client: Client) -> None:
    write(client.path("doc"), "perhaps lost\n")
    cut_power(client)
    client.mount()
    client.online()
    client.sync(check=False)
    (conflict,) = client.conflicts()
    assert conflict["path"] == "doc"
    assert "went down" in conflict["note"]
    assert read(client.path("doc")) == "perhaps lost\n"
    assert read(f"{client.server.root}/doc") == "settled\n"
    client.awayfs("resolve", client.path("doc"), "--keep", "local")
    client.sync()
    assert read(f"{client.server.root}/doc") == "perhaps lost\n"


def test_unsynced_new_file_goes_out(client: Client) -> None:
    """There is no older version that it could destroy."""
    write(client.path("new"), "perhaps lost\n")
    cut_power(client)
    client.mount()
    client.online()
    client.sync()
    assert client.conflicts() == []
    assert read(f"{client.server.root}/new") == "perhaps lost\n"


def test_what_was_synced_is_trusted(client: Client) -> None:
    write(client.path("doc"), "kept\n")
    run("sync", client.path("doc"))
    cut_power(client)
    client.mount()
    client.online()
    client.sync()
    assert client.conflicts() == []
    assert read(f"{client.server.root}/doc") == "kept\n"


def test_a_time_that_was_set_after_a_sync_parks_nothing(client: Client) -> None:
    """The cache file bears the node's time; the timed commit settles it."""
    write(client.path("doc"), "kept\n")
    run("sync", client.path("doc"))
    os.utime(client.path("doc"), ns=(10**18, 10**18))
    run("sync", client.path("doc"))
    cut_power(client)
    client.mount()
    assert os.stat(client.path("doc")).st_mtime_ns == 10**18
    client.online()
    client.sync()
    assert client.conflicts() == []
    assert os.stat(f"{client.server.root}/doc").st_mtime_ns == 10**18


def test_all_is_durable_within_seconds(client: Client) -> None:
    """The timed commit: nobody called fsync, and it counts as synced all the same."""
    write(client.path("doc"), "kept\n")
    time.sleep(7.0)
    cut_power(client)
    client.mount()
    client.online()
    client.sync()
    assert client.conflicts() == []
    assert read(f"{client.server.root}/doc") == "kept\n"


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
@pytest.mark.parametrize("name", ["doc", "new"])
def test_fsync_reaches_file_directory_and_log_before_it_returns(client: Client, name: str) -> None:
    trace = f"{client.base}/trace"
    command = ["strace", "-f", "-y", "-ttt", "-e", "trace=fsync,fdatasync", "-o", trace]
    tracer = subprocess.Popen([*command, "-p", str(client.pid)], stderr=subprocess.PIPE)
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        returned = float(run(sys.executable, "-c", FSYNC, client.path(name)))
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        tracer.stderr.close()
    calls = re.findall(r"^\d+ +([\d.]+) f(?:data)?sync\(\d+<([^>]*)>", read(trace), re.MULTILINE)
    in_time = [path for when, path in calls if float(when) <= returned]
    content = next(path for path in in_time if "/content/" in path)
    order = [content, os.path.dirname(content), f"{state_of(client)}/volume.db-wal"]
    assert [path for path in in_time if path in order][:3] == order


# -- a full disk ------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: object) -> Iterator[Client]:
    """A volume whose state is on a file system of 12 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    server = make_server("dir", str(tmp_path))
    client = Client(str(tmp_path), server)
    run("mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", client.state)
    try:
        client.mount()
        client.offline()
        yield client
    finally:
        client.close()
        run("umount", "-l", client.state)


def test_full_disk(small: Client) -> None:
    """ENOSPC is the writer's; what was answered stays, and with room again all goes on."""
    write(small.path("before"), "kept\n")
    code, written = map(int, run(sys.executable, "-c", FILL, small.path("big")).split())
    assert code == errno.ENOSPC
    assert written > 1 << 20
    made = []
    for number in range(2000):
        try:
            os.mkdir(small.path(f"d{number}"))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
        made.append(f"d{number}")
    big = b"".join(b"%08d" % (at // 8) * 512 for at in range(0, written, 4096))[:written]
    with open(small.path("big"), "rb") as file:
        assert file.read()[:written] == big
    assert read(small.path("before")) == "kept\n"
    small.kill()  # and nothing of it is lost when the daemon dies in that state
    run("mount", "-o", "remount,size=64m", small.state)
    small.mount()
    write(small.path("after"), "goes on\n")
    small.online()
    small.sync()
    root = small.server.root
    assert {*made, "before", "big", "after"} <= set(os.listdir(root))
    with open(f"{root}/big", "rb") as file:
        assert file.read()[:written] == big
    assert small.conflicts() == []


def test_room_is_made_while_the_daemon_runs(small: Client) -> None:
    written = int(run(sys.executable, "-c", FILL, small.path("big")).split()[1])
    run("mount", "-o", "remount,size=64m", small.state)
    write(small.path("after"), "goes on\n")
    assert os.path.getsize(small.path("big")) >= written
    small.online()
    small.sync()
    assert read(f"{small.server.root}/after") == "goes on\n"
    assert os.path.getsize(f"{small.server.root}/big") == os.path.getsize(small.path("big"))


# -- damage -----------------------------------------------------------------------------------


def scribble(database: str) -> None:
    """Garbage over the page where the server's view begins, which can be had again."""
    with sqlite3.connect(database) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'server_nodes'"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with open(database, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


def cut_short(database: str) -> None:
    """The last page is gone."""
    os.truncate(database, os.path.getsize(database) - 4096)


@pytest.mark.parametrize("damage", [scribble, cut_short])
def test_damaged_database(client: Client, damage: object) -> None:
    """Set aside, salvaged, said so; what was not sent goes out."""
    write(client.path("new"), "not sent yet\n")
    os.mkdir(client.path("directory"))
    write(client.path("directory/inside"), "nor this\n")
    client.umount()
    eventually(lambda: client.pid == 0 or not client.is_mounted(), "the end of the mount")
    state = state_of(client)
    eventually(lambda: not os.path.exists(f"{state}/running"), "the end of the daemon")
    assert callable(damage)
    damage(f"{state}/volume.db")
    write(f"{state}/running", ANOTHER_BOOT)  # a damage comes with an end that was none
    client.mount()
    assert "damaged" in client.log
    assert glob.glob(f"{state}/damaged-*")
    assert read(client.path("new")) == "not sent yet\n"
    client.online()
    client.sync(check=False)
    assert read(f"{client.server.root}/doc") == "settled\n"
    assert read(f"{client.server.root}/new") == "not sent yet\n"
    assert read(f"{client.server.root}/directory/inside") == "nor this\n"


def test_log_is_gone(client: Client) -> None:
    """What was in the log alone is lost as names; its bytes are kept, the server's untouched."""
    write(client.path("doc"), "only in the log\n")
    client.kill()
    state = state_of(client)
    os.unlink(f"{state}/volume.db-wal")
    client.mount()
    client.online()
    client.sync(check=False)
    kept = [path for path in glob.glob(f"{state}/**/*", recursive=True) if os.path.isfile(path)]
    assert any("only in the log" in text(path) for path in kept)
    assert read(f"{client.server.root}/doc") in ("settled\n", "only in the log\n")


def test_second_daemon_says_one_line(client: Client, tmp_path: object) -> None:
    other = f"{tmp_path}/other"
    os.mkdir(other)
    said = client.fails("mount", client.server.url, other)
    assert "mounted" in said or "in use" in said, said
    assert read(client.path("doc")) == "settled\n"
