"""Commands as processes beside a mount that answers nothing: none may hang on it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from awayfs.cli.ending import waits_for_disk
from awayfs.control import mountinfo, mounts, paths

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        os.getuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"
    ),
]

SERVER = """
import asyncio, sys
from awayfs.control import mounts, paths
from awayfs.control.server import ControlServer
async def main():
    async def status(params):
        return {"mode": "connected", "mountpoint": sys.argv[1]}
    mounts.announce("v", "dir:/x", sys.argv[1].encode())
    await ControlServer(paths.socket_file("v"), {"status": status}).start()
    print("up", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


STUCK = """
import asyncio, sys
from awayfs.control import mounts, paths
from awayfs.control.server import ControlServer
from awayfs.fuse.mount import mount
from awayfs.testing.memory_mount import Server
async def main():
    url, place = sys.argv[1:]
    server = Server(mount(place, fsname=url), {})
    await server.start()
    mounts.announce("v", url, place.encode())
    await ControlServer(paths.socket_file("v"), {}).start()
    print("up", flush=True)
    while server.fs.log != ["slow begins"]:
        await asyncio.sleep(0.01)
    server.notifier.inval_entry(1, b"anything")
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def place(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A FUSE mount of ours whose requests nobody reads: looking into it hangs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    paths.ensure_state()
    point = tmp_path / "m"
    point.mkdir()
    library = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    target = os.fsencode(point)
    if library.mount(b"dir:/x", target, b"fuse.awayfs", 2 | 4, options) != 0:
        os.close(device)
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield str(point)
    finally:
        os.close(device)  # before the unmount: whoever hangs in there is let go
        library.umount2(target, 2)


@pytest.fixture
def daemon(place: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with a control socket, which a test may stop or kill."""
    child = subprocess.Popen([sys.executable, "-c", SERVER, place], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def run(*args: str, cwd: str | None = None) -> tuple[int, str, str]:
    command = [sys.executable, "-c", "from awayfs.cli.main import main; main()", *args]
    before = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=cwd)
    assert time.monotonic() - before < 15
    return done.returncode, done.stdout, done.stderr


def test_a_path_in_a_mount_is_found_without_touching_it(
    place: str, daemon: subprocess.Popen[bytes], tmp_path: Any
) -> None:
    os.symlink(place, tmp_path / "link")
    for path in (place, place + "/a/b", str(tmp_path / "link/x"), place + "/../m/y"):
        status, out, _ = run("status", path, "--json")
        assert (status, json.loads(out)["mode"]) == (0, "connected")


@pytest.mark.slow
def test_a_stopped_daemon(place: str, daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGSTOP)
    status, out, errors = run("status", "--json")
    (reply,) = (reply for reply in json.loads(out) if reply["mountpoint"] == place)
    assert status == 1 and reply["mode"] is None
    (line,) = (line for line in errors.splitlines() if place in line)
    assert "not answered" in line
    status, _, errors = run("umount", place)
    assert status == 1 and errors.count("\n") == 1
    assert run("umount", place, "--lazy")[0] == 0
    assert not any(entry.mountpoint == place.encode() for entry in mountinfo.read())


def here(place: str) -> list[mounts.MountInfo]:
    """What is known of the mount of this test; others on this machine are not looked at."""
    return [mount for mount in mounts.find_mounts() if mount.mountpoint == place.encode()]


def test_a_dead_daemon(place: str, daemon: subprocess.Popen[bytes]) -> None:
    daemon.kill()
    daemon.wait()
    (mount,) = here(place)
    assert not mount.running and mount.mounted
    status, _, errors = run("mount", "dir:/y", place)
    assert status == 1 and "dead mount" in errors
    (line,) = (line for line in run("doctor")[1].splitlines() if "dead:" in line)
    assert place in line
    status, _, errors = run("pin", place + "/x")
    assert status == 1 and "not running" in errors
    status, out, errors = run("umount", place)
    assert (status, errors) == (0, "") and "cleaned up" in out
    assert here(place) == [] and os.listdir(paths.runtime_dir()) == []
    assert "no awayfs mount" in run("umount", place)[2]


@pytest.fixture
def killed_amid_a_notification(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """A URL, where it is mounted, and the daemon, of which a thread is left in the kernel.

    It waits for a directory that somebody else has locked, who waits for an answer of the daemon.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    paths.ensure_state()
    point, share = tmp_path / "m", tmp_path / "share"
    point.mkdir()
    share.mkdir()
    url = f"dir:{share}"
    child = subprocess.Popen([sys.executable, "-c", STUCK, url, str(point)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    caller = subprocess.Popen(["stat", point / "slow"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not waits_for_disk(child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.kill()
        yield url, str(point), child
    finally:
        subprocess.run(["umount", "-f", "-l", point], capture_output=True, check=False)
        for one in (caller, child):
            one.kill()
            one.wait(10)
        child.stdout.close()


@pytest.mark.parametrize("command", ["mount", "umount"])
def test_a_daemon_that_was_killed_and_cannot_end(
    killed_amid_a_notification: tuple[str, str, subprocess.Popen[bytes]], command: str
) -> None:
    """Its lock would be held, and whoever looks into the mount wait, until the machine is off."""
    url, place, daemon = killed_amid_a_notification
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.wait(0.5)
    (mount,) = here(place)
    assert not mount.running and mounts.lingers(mount)
    given = (url, place) if command == "mount" else (place,)
    status, _, errors = run(command, *given)
    assert (status, errors) == (0, "")
    assert daemon.wait(10) == -signal.SIGKILL
    if command == "mount":
        assert os.listdir(place) == []
        assert run("umount", place)[0] == 0
    assert here(place) == []


def test_a_mount_whose_state_is_elsewhere(
    place: str, daemon: subprocess.Popen[bytes], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    paths.ensure_state()
    status, out, errors = run("status", "--json")
    (reply,) = (reply for reply in json.loads(out) if reply["mountpoint"] == place)
    assert (reply["url"], reply["mode"], reply["elsewhere"]) == ("dir:/x", None, True)
    assert (status, errors) == (0, "")
    assert f"{place}  served from elsewhere" in run("status")[1]
    findings = run("doctor")[1]
    (line,) = (line for line in findings.splitlines() if place in line)
    assert line.startswith("ok") and "dead:" not in findings
    status, _, errors = run("pin", place + "/x")
    assert status == 1 and "state is elsewhere" in errors and errors.count("\n") == 1
    status, _, errors = run("mount", "dir:/y", place)
    assert status == 1 and "already mounted" in errors
    assert place not in run("offline")[2]
    until = time.monotonic() + 20
    while (status := (ended := run("umount", place))[0]) and time.monotonic() < until:
        assert "busy" in ended[2]  # while another test's command looks at all mounts there are
    out = ended[1]
    assert status == 0 and "its state is elsewhere" in out
    assert not any(entry.mountpoint == place.encode() for entry in mountinfo.read())


def taken_over_by_init(module: str) -> int:
    """A process that looks like ``-m MODULE`` and whose parent is gone; its pid."""
    asleep = f"{sys.executable} -c 'import time; time.sleep(60)' -m {module}"
    told = subprocess.run(
        ["setsid", "sh", "-c", f"{asleep} >&- 2>&- & echo $!"], capture_output=True, text=True
    )
    return int(told.stdout)


def test_doctor_never_has_a_daemon_killed() -> None:
    from awayfs.cli import checks

    daemon = taken_over_by_init("awayfs.daemon")
    worker = taken_over_by_init("awayfs.remotes.worker")
    try:
        finding = checks.orphans()
    finally:
        os.kill(daemon, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
    named = (finding.text + finding.advice).replace(",", "").split()
    assert str(worker) in named and str(daemon) not in named
