"""A mount that runs for months: what starts it, watches it, and mounts it again after a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import awayfs
from tests.harness import Client, eventually, make_server, needs_fuse, run

pytestmark = needs_fuse

UNIT = f"{os.path.dirname(awayfs.__file__)}/systemd/awayfs@.service"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    server = make_server("dir", str(tmp_path))
    client = Client(str(tmp_path), server)
    try:
        yield client
    finally:
        client.close()
        server.close()


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.heard: list[str] = []

    def listen(self, seconds: float, until: str = "") -> list[str]:
        """The lines that come in so long, or until one begins with ``until``."""
        heard: list[str] = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                heard += self.socket.recv(65536).decode().splitlines()
                if until and any(line.startswith(until) for line in heard):
                    break
        self.heard += heard
        return heard


@contextlib.contextmanager
def supervised(client: Client, manager: Manager) -> Iterator[subprocess.Popen[bytes]]:
    """``awayfs mount -f`` as a service with a watchdog of 600 ms."""
    environment = {
        **client.env,
        "NOTIFY_SOCKET": manager.path,
        "WATCHDOG_USEC": "600000",
    }
    command = [sys.executable, "-m", "awayfs", "mount", "-f", client.server.url, client.mountpoint]
    with open(f"{client.home}/service.log", "wb") as log:
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


def test_the_service_manager_hears_of_it(client: Client, tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with supervised(client, manager) as daemon:
        assert "READY=1" in manager.listen(30, "READY=1")
        Path(client.path("f")).write_text("x")
        assert manager.listen(2).count("WATCHDOG=1") >= 4
        client.offline()
        Path(client.path("g")).write_text("x")
        status = manager.listen(3, "STATUS=disconnected")
        assert any(re.match(r"STATUS=disconnected, \d+ changes not sent", one) for one in status)
        for name in os.listdir("/proc"):  # the worker is no part of the conversation
            with contextlib.suppress(OSError):
                if (
                    name.isdecimal()
                    and f"PPid:\t{daemon.pid}\n" in Path(f"/proc/{name}/status").read_text()
                ):
                    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{name}/environ").read_bytes()
        os.kill(daemon.pid, signal.SIGSTOP)
        manager.listen(0.2)
        assert manager.listen(1.5) == []
        os.kill(daemon.pid, signal.SIGCONT)
        assert "WATCHDOG=1" in manager.listen(5, "WATCHDOG=1")
        daemon.terminate()
        assert "STOPPING=1" in manager.listen(10, "STOPPING=1")
        assert daemon.wait(30) == 0
    assert not client.is_mounted()


def test_a_crashed_daemon_is_mounted_again_in_its_place(client: Client) -> None:
    """The same command that mounted it: the dead mount goes, all state stays."""
    client.mount()
    Path(client.path("sent")).write_text("on both sides\n")
    client.sync()
    client.offline()
    Path(client.path("unsent")).write_text("only here\n")
    with open(client.path("sent"), "r+") as held:
        os.kill(client.pid, signal.SIGKILL)
        eventually(lambda: _is_dead(client.mountpoint), "the end of the daemon")
        with pytest.raises(OSError) as caught:
            os.fstat(held.fileno()), os.pread(held.fileno(), 1, 0), os.fsync(held.fileno())
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        client.mount()
        with pytest.raises(OSError):
            os.fsync(held.fileno())
        with contextlib.suppress(OSError):
            held.close()
    assert Path(client.path("unsent")).read_text() == "only here\n"
    assert Path(client.path("sent")).read_text() == "on both sides\n"
    with open("/proc/self/mountinfo") as table:
        assert sum(client.mountpoint in line for line in table) == 1
    client.online()
    client.sync()
    assert Path(client.server.root, "unsent").read_text() == "only here\n"


def test_a_hung_daemon_is_not_taken_for_dead(client: Client) -> None:
    client.mount()
    pid = client.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        line = client.fails("mount", client.server.url, client.mountpoint)
        assert "already mounted" in line
    finally:
        os.kill(pid, signal.SIGCONT)
    assert client.status()["mode"] == "connected"


def _is_dead(place: str) -> bool:
    try:
        os.statvfs(place)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) and a mount namespace need root")
def test_mount_8_finds_the_helper(client: Client, tmp_path: Path) -> None:
    """With ``mount.awayfs`` in /sbin, here of a mount namespace, and what fstab would say."""
    helper = os.path.join(os.path.dirname(sys.executable), "mount.awayfs")
    if not os.access(helper, os.X_OK):
        pytest.skip("mount.awayfs is not installed beside this Python")
    sbin = os.path.realpath("/sbin")
    Path(client.server.root, "f").write_text("through fstab\n")
    options = "_netdev,nofail,x-systemd.automount,fresh=7"
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{client.server.url} {client.mountpoint} awayfs {options} 0 0\n")
    (tmp_path / "work").mkdir()
    script = f"""
        cd {tmp_path} && mount -t tmpfs none work && mkdir work/u work/w
        mount -t overlay none -o lowerdir={sbin},upperdir=work/u,workdir=work/w {sbin}
        ln -s {helper} {sbin}/mount.awayfs
        mount -T {fstab} {client.mountpoint} && cat {client.mountpoint}/f
        grep {client.mountpoint} /proc/self/mounts
        umount {client.mountpoint} && echo gone
        mount -t awayfs -o ro {client.server.url} {client.mountpoint} && cat {client.mountpoint}/f
        touch {client.mountpoint}/g || echo read-only
        umount {client.mountpoint}
    """
    said = run("unshare", "-m", "sh", "-c", script, env=client.env, check=False)
    assert said.count("through fstab\n") == 2, said
    assert " fuse.awayfs " in said and "gone\n" in said and said.endswith("read-only\n")


SYSTEMD = "/usr/lib/systemd/systemd"

UNDER_SYSTEMD = """
    mount -t tmpfs none /run && mkdir -p /run/systemd/system
    umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup || exit 77
    own=/sys/fs/cgroup/awayfs-test-$$
    mkdir $own && echo $$ > $own/cgroup.procs || exit 77
    timeout -s KILL 100 {systemd} --user --log-target=console --unit=basic.target > {log} 2>&1 &
    for i in $(seq 100); do
        systemctl --user is-active -q basic.target 2>> {log} && break; sleep 0.1
    done
    pid() {{ systemctl --user show -p MainPID --value awayfs@work; }}
    another() {{
        for i in $(seq 300); do
            new=$(pid); [ "$new" != 0 ] && [ "$new" != $1 ] && [ -e {mnt}/f ] && break; sleep 0.1
        done
        systemctl --user show -p NRestarts --value awayfs@work; cat {mnt}/f
    }}
    systemctl --user start awayfs@work || exit 1
    systemctl --user show -p StatusText --value awayfs@work; cat {mnt}/f
    old=$(pid); kill -KILL $old; another $old
    old=$(pid); kill -STOP $old; another $old
    systemctl --user stop awayfs@work
    systemctl --user show -p Result --value awayfs@work
    grep -c {mnt} /proc/mounts
    systemctl --user exit; wait
    echo $$ > /sys/fs/cgroup/cgroup.procs; find $own -depth -type d -exec rmdir {{}} \\;
    true
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
@pytest.mark.skipif(not os.access(SYSTEMD, os.X_OK), reason="no systemd here")
def test_a_real_systemd_starts_and_restarts_it(client: Client, tmp_path: Path) -> None:
    """A user manager in a mount namespace: killed, and hung under a watchdog of two seconds."""
    config, home, runtime = tmp_path / "config", tmp_path / "home", tmp_path / "runtime"
    units, mounts = config / "systemd/user", config / "awayfs/mounts"
    for directory in (units / "awayfs@.service.d", mounts, home / ".local", runtime):
        directory.mkdir(parents=True)
    runtime.chmod(0o700)
    shutil.copy(UNIT, units)
    quick = "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=100ms\n"
    (units / "awayfs@.service.d/quick.conf").write_text(quick)
    os.symlink(os.path.dirname(sys.executable), home / ".local/bin")
    Path(client.server.root, "f").write_text("served\n")
    (mounts / "work.conf").write_text(f"URL={client.server.url}\nMOUNTPOINT={client.mountpoint}\n")
    log = tmp_path / "log"
    script = UNDER_SYSTEMD.format(systemd=SYSTEMD, log=log, mnt=client.mountpoint)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "HOME": str(home),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "XDG_CONFIG_HOME": str(config),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": client.state,
        },
    )
    if done.returncode == 77:
        pytest.skip("no cgroup2 of one's own here")
    said = done.stdout.splitlines()
    assert said == [
        *("connected, 0 changes not sent", "served"),
        *("1", "served"),
        *("2", "served"),
        *("success", "0"),
    ], (done.stdout, done.stderr, log.read_text()[-2000:])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = tmp_path / "awayfs@work.service"
    shutil.copy(UNIT, unit)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert "awayfs" not in done.stderr, done.stderr
    words = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)[0].split()
    assert words[:5] == ["/usr/bin/env", "awayfs", "mount", "-f", "-o"]
