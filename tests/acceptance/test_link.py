"""The link: black-holed, refused, frozen; nobody hangs, nothing is lost, all drains afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.harness import Client, assert_same_tree, eventually, mounted, needs_fuse, tree
from tests.netns import WiredClient, needs_netns, wired
from tests.programs import Trial, attempt
from tests.sshd import descendants, needs_sshd

pytestmark = [*needs_fuse, *needs_sshd]

FIRST_S = 3.5
"""What the first to meet a dead link may wait; the promise is 2 s, the rest is a loaded machine."""
AT_ONCE_S = 0.3
BACK_S = 30.0
MIB = 1 << 20
NEVER = "never/far/down/below"
"""A directory whose name is known, and which nobody lists: not even who looks ahead of a walk."""


def write(path: str, data: str | bytes) -> None:
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def fill(root: str) -> None:
    """What most tests need on the server: cached soon, never cached, never listed."""
    os.makedirs(f"{root}/cached")
    os.makedirs(f"{root}/{NEVER}")
    for number in range(5):
        write(f"{root}/cached/{number}", f"cached {number}\n" * 100)
    write(f"{root}/{NEVER}/file", "unseen")
    for name in ("remote1", "remote2"):
        write(f"{root}/{name}", "not fetched\n")
    write(f"{root}/large", os.urandom(24 * MIB))


def warm(client: Client) -> None:
    """List the root, pin what is to be cached."""
    os.listdir(client.mountpoint)
    os.stat(client.path(NEVER))
    client.awayfs("pin", client.path("cached"))


def wait_connected(client: Client) -> None:
    eventually(lambda: client.status()["mode"] == "connected", "being connected again", BACK_S)


def check_status_says_so(client: Client) -> None:
    begun = time.monotonic()
    status = client.status()
    assert time.monotonic() - begun < 3, "status does not answer at once"
    assert status["mode"] == "disconnected"
    assert status["cause"] not in ("", "starting")


def check_offline_manners(client: Client) -> None:
    """The link is known to be dead: what is here works, what is not fails, all at once."""
    for number in range(5):
        cached = attempt("read", client.path(f"cached/{number}"))
        assert (cached.code, cached.text) == (0, (f"cached {number}\n" * 100)[:1000])
        assert cached.seconds < AT_ONCE_S
    for what, path, code in (
        ("read", "remote1", errno.ENODATA),
        ("read", "remote2", errno.ENODATA),
        ("list", NEVER, errno.ENODATA),
        ("stat", f"{NEVER}/file", errno.ENETDOWN),
        ("stat", "cached/nothing", errno.ENOENT),
    ):
        missing = attempt(what, client.path(path))
        assert missing.code == code, (what, path, errno.errorcode.get(missing.code))
        assert missing.seconds < AT_ONCE_S, (what, path, missing.seconds)
    check_status_says_so(client)


def has_staged(client: Client) -> bool:
    """Whether there are staged files on the server, the mount being looked through before.

    A server process that was frozen may still make one when it thaws, after the operation was
    done by another one. Nobody sees it through a mount.
    """
    tree(client.mountpoint)
    return any(os.path.basename(name).startswith(".awayfs-") for name in tree(client.server.root))


def check_in_step(client: Client) -> None:
    """All is sent, no conflict came of it, and both sides are the same."""
    eventually(lambda: client.status()["pending"]["records"] == 0, "an empty journal", BACK_S)
    assert client.conflicts() == []
    grain = client.server.time_grain_ns
    here, there = (
        tree(root, mtime_grain_ns=grain, directories_mtime=False)
        for root in (client.mountpoint, client.server.root)
    )
    assert_same_tree(here, there)


_READER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
os.read(fd, 1 << 20)
print("going", flush=True)
sys.stdin.readline()
begun, code = time.monotonic(), 0
try:
    while os.read(fd, 1 << 20):
        pass
except OSError as error:
    code = error.errno
print(code, time.monotonic() - begun, flush=True)
"""


class TestBlackHole:
    pytestmark = needs_netns

    def test_mid_read(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            fill(client.server.root)
            client.mount()
            warm(client)
            reader = subprocess.Popen(
                [sys.executable, "-I", "-c", _READER, client.path("large")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "going\n"
                client.server.cut()
                said, _ = reader.communicate("\n", timeout=20)
            finally:
                reader.kill()
            code, seconds = said.split()
            assert int(code) == errno.ENODATA
            assert float(seconds) < FIRST_S
            check_offline_manners(client)
            client.server.restore()
            wait_connected(client)
            assert attempt("read", client.path("large")).size == 24 * MIB
            check_in_step(client)

    def test_mid_write(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            fill(client.server.root)
            client.mount()
            warm(client)
            write(client.path("upload"), os.urandom(64 * MIB))
            eventually(lambda: is_staging(client.server.root), "an upload under way")
            client.server.cut()
            begun = time.monotonic()
            with open(client.path("more"), "wb") as file:
                for _ in range(16):
                    file.write(os.urandom(MIB))
            assert time.monotonic() - begun < FIRST_S, "a write waits for no server"
            missing = attempt("read", client.path("remote1"))
            assert missing.code == errno.ENODATA
            assert missing.seconds < FIRST_S
            check_offline_manners(client)
            client.server.restore()
            client.online()
            check_in_step(client)

    def test_mid_replay(self, tmp_path: object) -> None:
        """Many records on the way; nobody but replay is there to notice."""
        with wired(str(tmp_path), mount=False) as client:
            fill(client.server.root)
            client.mount()
            warm(client)
            client.offline()
            work_offline(client)
            client.awayfs("auto", client.mountpoint)
            eventually(lambda: len(os.listdir(client.server.root)) > 12, "replay under way")
            client.server.cut()
            assert client.status()["pending"]["records"] > 0, "too late to cut it"
            said = client.fails("sync", client.mountpoint, "--wait", timeout=15)
            assert "cannot be sent" in said or "answer" in said
            eventually(lambda: client.status()["mode"] == "disconnected", "notice")
            failed = client.fails("online", client.mountpoint, timeout=30)
            assert "answer" in failed, failed
            check_offline_manners(client)
            client.server.restore()
            check_in_step(client)
            wait_connected(client)

    def test_interrupt(self, tmp_path: object) -> None:
        """The link would be given up after much longer than a signal may take."""
        with wired(str(tmp_path), mount=False) as client:
            fill(client.server.root)
            client.mount("fresh=0,timeout=30")
            warm(client)
            with opened_before(client.path("large")) as reader:
                client.server.cut()
                check_interruptible(client, reader)

    def test_storm_and_unmount(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            fill(client.server.root)
            client.mount("fresh=0")
            warm(client)
            client.server.cut()
            storm = [Trial("stat", client.path(f"cached/{n % 5}")) for n in range(10)]
            storm += [Trial("read", client.path(f"remote{n % 2 + 1}")) for n in range(5)]
            storm += [Trial("list", client.path(NEVER)) for _ in range(5)]
            results = [trial.result() for trial in storm]
            assert max(result.seconds for result in results) < FIRST_S
            assert all(result.code == 0 for result in results[:10])
            assert all(result.code == errno.ENODATA for result in results[10:])
            check_offline_manners(client)
            client.server.restore()
            client.online()
            os.listdir(client.path("cached"))
            client.server.cut()
            write(client.path("late"), "written while nobody knew\n")
            begun = time.monotonic()
            said = client.umount()
            assert time.monotonic() - begun < 8
            assert "kept" in said
            check_starts_unreachable(client)

    def test_unknown_volume(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            client.server.cut()
            begun = time.monotonic()
            done = subprocess.run(
                [
                    *(*client.prefix, sys.executable, "-m", "awayfs", "mount", client.server.url),
                    *(client.mountpoint, "-o", client.server.options),
                ],
                capture_output=True,
                text=True,
                timeout=60,
                env=client.env,
            )
            assert time.monotonic() - begun < 15
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1
            assert "answer" in done.stderr
            left = [files for _, _, files in os.walk(client.state)]
            assert [name for files in left for name in files] == ["daemon.log"]
            assert not client.is_mounted()
            assert json.loads(client.awayfs("volumes", "--json")) in ([], {"volumes": []})


def is_staging(root: str) -> bool:
    return any(name.startswith(".awayfs-") for name in os.listdir(root))


def work_offline(client: Client) -> None:
    """Files, directories, renames and removals: more than a hundred records."""
    for number in range(30):
        write(client.path(f"new{number}"), os.urandom(2000))
        os.mkdir(client.path(f"dir{number}"))
        write(client.path(f"dir{number}/inside"), f"{number}\n")
    for number in range(0, 30, 5):
        os.rename(client.path(f"dir{number}"), client.path(f"moved{number}"))
    os.unlink(client.path("cached/0"))
    write(client.path("cached/0"), "cached 0\n" * 100)


_OPENED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
sys.stdin.readline()
os.read(fd, 1 << 20)
"""


@contextlib.contextmanager
def opened_before(path: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has a file open and will read from it when told to."""
    reader = subprocess.Popen(
        [sys.executable, "-I", "-c", _OPENED, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        yield reader
    finally:
        reader.kill()
        reader.communicate(timeout=10)


def check_interruptible(client: Client, reader: subprocess.Popen[str]) -> None:
    """The link hangs and nobody has noticed: a signal ends a waiting program at once.

    What ends it must be the signal, and not that the link is found to be dead meanwhile.
    """
    assert reader.stdin is not None
    reader.stdin.write("\n")
    reader.stdin.flush()
    trial = Trial("stat", client.path("cached/1"))
    time.sleep(0.5)
    for process in (reader, trial.process):
        assert process.poll() is None, "it does not wait"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        assert time.monotonic() - begun < 5.0
        assert process.returncode != 0


def check_starts_unreachable(client: WiredClient) -> None:
    """Known volumes mount without their server, after a good end and after a bad one."""
    begun = time.monotonic()
    client.mount()
    assert time.monotonic() - begun < 12
    check_offline_manners(client)
    assert read(client.path("late")) == b"written while nobody knew\n"
    write(client.path("later"), "and more\n")
    client.kill()
    client.mount()
    check_offline_manners(client)
    assert read(client.path("later")) == b"and more\n"
    client.server.restore()
    check_in_step(client)


class TestServerProcesses:
    """The server's machine answers, its processes do not; or they are gone and come back."""

    def test_refused_mid_replay(self, tmp_path: object) -> None:
        with mounted("sftp", str(tmp_path)) as client:
            fill(client.server.root)
            warm(client)
            client.offline()
            work_offline(client)
            client.awayfs("auto", client.mountpoint)
            eventually(lambda: len(os.listdir(client.server.root)) > 12, "replay under way")
            client.server.cut()
            eventually(lambda: client.status()["mode"] == "disconnected", "notice")
            check_offline_manners(client)
            assert "refuses" in client.fails("online", client.mountpoint)
            client.server.restore()
            check_in_step(client)

    def test_another_host_key_and_the_right_one_again(self, tmp_path: object) -> None:
        """As when a laptop is in another network for a while: stopped, and back by itself."""
        with mounted("sftp", str(tmp_path)) as client:
            fill(client.server.root)
            warm(client)
            sshd = client.server.sshd  # type: ignore[union-attr]
            keys = {name: read(f"{sshd.directory}/{name}") for name in ("host_key", "host_key.pub")}
            sshd.kill()
            sshd.new_host_key()
            sshd.start()
            missing = attempt("read", client.path("remote1"))
            assert (missing.code, missing.seconds < FIRST_S) == (errno.ENODATA, True)
            eventually(lambda: client.status()["mode"] == "stopped", "the stop")
            assert "host key" in client.status()["cause"]
            assert "host key" in client.fails("online", client.mountpoint)
            write(client.path("cached/1"), "edited meanwhile\n")
            sshd.kill()
            for name, content in keys.items():
                write(f"{sshd.directory}/{name}", content)
            sshd.start()
            check_in_step(client)
            wait_connected(client)

    def test_frozen_mid_replay_and_thawed_later(self, tmp_path: object) -> None:
        """The old sessions wake up when their work was done again by a new one."""
        with mounted("sftp", str(tmp_path)) as client:
            fill(client.server.root)
            warm(client)
            client.offline()
            work_offline(client)
            client.awayfs("auto", client.mountpoint)
            eventually(lambda: len(os.listdir(client.server.root)) > 12, "replay under way")
            frozen = client.server.sshd.freeze()  # type: ignore[union-attr]
            try:
                begun = time.monotonic()
                check_in_step(client)
                assert time.monotonic() - begun > 1, "nothing was on the way"
            finally:
                client.server.sshd.thaw()  # type: ignore[union-attr]
            eventually(lambda: not any(map(is_running, frozen)), "the old sessions' end")
            time.sleep(0.2)
            eventually(lambda: not has_staged(client), "the late sessions' files reaped")
            check_in_step(client)

    def test_close_waits_while_connected_and_never_for_the_dead(self, tmp_path: object) -> None:
        with mounted("sftp", str(tmp_path), "writes=close,fresh=60") as client:
            assert os.listdir(client.mountpoint) == []
            assert attempt("write", client.path("a"), "at once\n").code == 0
            assert read(f"{client.server.root}/a") == b"at once\n"
            client.server.sshd.freeze()  # type: ignore[union-attr]
            try:
                waited = attempt("write", client.path("b"), "while frozen\n", "close")
            finally:
                client.server.sshd.thaw()  # type: ignore[union-attr]
            assert waited.code == 0
            assert 1 < waited.seconds < FIRST_S
            check_in_step(client)

    def test_a_hung_kernel_mount(self, tmp_path: object) -> None:
        """``dir:`` on a file system that stops answering: its worker hangs, nobody else."""
        with mounted("dir", str(tmp_path), "fresh=0") as client:
            fill(client.server.root)
            warm(client)
            (worker,) = descendants(client.pid)
            os.kill(worker, signal.SIGSTOP)
            trials = [Trial("read", client.path("remote1")), Trial("stat", client.path("cached/1"))]
            hung, known = [trial.result() for trial in trials]
            assert (hung.code, known.code) == (errno.ENODATA, 0)
            assert max(hung.seconds, known.seconds) < FIRST_S
            wait_connected(client)
            assert attempt("read", client.path("remote1")).code == 0
            assert not is_running(worker)
            assert len(descendants(client.pid)) == 1


@pytest.mark.parametrize("how", ["close", "through"])
def test_writes_wait_for_the_server(how: str, tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), f"writes={how}") as client:
        root = client.server.root
        fd = os.open(client.path("f"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"one")
        if how == "through":
            assert read(f"{root}/f") == b"one"
        os.fsync(fd)
        assert read(f"{root}/f") == b"one"
        os.write(fd, b"two")
        os.close(fd)
        assert read(f"{root}/f") == b"onetwo"
        if how == "through":
            os.mkdir(client.path("d"))
            assert os.path.isdir(f"{root}/d")
            os.rename(client.path("f"), client.path("d/g"))
            assert os.listdir(f"{root}/d") == ["g"]
            os.chmod(client.path("d/g"), 0o640)
            assert os.stat(f"{root}/d/g").st_mode & 0o777 == 0o640
            os.unlink(client.path("d/g"))
            assert os.listdir(f"{root}/d") == []
        client.offline()
        assert attempt("write", client.path("later"), "x").seconds < AT_ONCE_S
        client.online()
        check_in_step(client)


@pytest.mark.parametrize(
    ("option", "data", "name"),
    [("errno=posix", errno.ENODATA, errno.ENETDOWN), ("errno=distinct", 502, 501)],
)
def test_errors_say_what_is_missing(option: str, data: int, name: int, tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), option) as client:
        fill(client.server.root)
        warm(client)
        client.offline()
        assert attempt("read", client.path("remote1")).code == data
        assert attempt("list", client.path(NEVER)).code == data
        assert attempt("stat", client.path(NEVER, "file")).code == name
        assert attempt("stat", client.path("cached/nothing")).code == errno.ENOENT
        why = client.awayfs("why", client.path("remote1"))
        assert "EDISCONDATA" in why


def test_offline_by_hand_is_kept(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        fill(client.server.root)
        warm(client)
        client.offline()
        write(client.path("new"), "made offline\n")
        assert "sync" not in client.umount()
        client.mount()
        status = client.status()
        assert (status["mode"], status["by_hand"]) == ("disconnected", True)
        time.sleep(1.5)
        assert client.status()["mode"] == "disconnected"
        assert not os.path.exists(f"{client.server.root}/new")
        assert "cannot be sent" in client.fails("sync", client.mountpoint, "--wait")
        client.server.cut()
        begun = time.monotonic()
        client.fails("online", client.mountpoint)
        assert time.monotonic() - begun < 8
        status = client.status()
        assert (status["mode"], status["by_hand"]) == ("disconnected", False)
        client.server.restore()
        check_in_step(client)
        client.offline()
        client.awayfs("auto", client.mountpoint)
        status = client.status()
        assert (status["mode"], status["by_hand"]) == ("connected", False)


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_what_changed_meanwhile_shows_at_once(kind: str, tmp_path: object) -> None:
    with mounted(kind, str(tmp_path)) as client:
        root = client.server.root
        os.makedirs(f"{root}/d/below")
        for name in ("changed", "deleted", "d/changed", "d/deleted"):
            write(f"{root}/{name}", "old\n")
        write(f"{root}/big", b"o" * MIB)
        client.awayfs("pin", client.mountpoint)
        held = os.open(client.path("d"), os.O_RDONLY)
        try:
            assert sorted(os.listdir(held)) == ["below", "changed", "deleted"]
            look_everywhere(client)
            client.offline()
            look_everywhere(client)
            for directory in (root, f"{root}/d"):
                write(f"{directory}/changed", "new content\n")
                os.unlink(f"{directory}/deleted")
                write(f"{directory}/added", "added\n")
            write(f"{root}/big", b"n" * (MIB + 1))
            os.rmdir(f"{root}/d/below")
            client.online()
            assert sorted(os.listdir(held)) == ["added", "changed"]
            assert read(client.path("big")) == b"n" * (MIB + 1)
            for directory in ("", "d/"):
                assert read(client.path(f"{directory}changed")) == b"new content\n"
                assert not os.path.exists(client.path(f"{directory}deleted"))
                assert read(client.path(f"{directory}added")) == b"added\n"
            assert sorted(os.listdir(client.path("d"))) == ["added", "changed"]
        finally:
            os.close(held)


def look_everywhere(client: Client) -> None:
    """Have the kernel cache names, attributes, listings and pages."""
    for name in ("changed", "deleted", "big", "d/changed", "d/deleted"):
        read(client.path(name))
    for name in ("", "d"):
        os.listdir(client.path(name))
        assert not os.path.exists(client.path(name, "added"))


@pytest.mark.parametrize("how", ["awayfs umount", "umount", "SIGTERM"])
def test_every_end_is_clean(how: str, tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        assert os.listdir(client.mountpoint) == []
        client.offline()
        write(client.path("kept"), "not sent\n")
        daemon = client.pid
        processes = [daemon, *descendants(daemon)]
        if how == "awayfs umount":
            assert "kept and will be sent at the next mount" in client.umount()
        elif how == "umount":
            subprocess.run(["umount", client.mountpoint], check=True, timeout=20)
        else:
            os.kill(daemon, getattr(signal, how))
        eventually(lambda: not any(map(is_running, processes)), "the processes' end")
        assert not client.is_mounted()
        assert os.listdir(os.path.join(client.runtime, "awayfs")) == []
        (volume,) = volumes_of(client)
        assert volume["pending"] >= 1
        client.mount()
        client.online()
        check_in_step(client)
        assert read(f"{client.server.root}/kept") == b"not sent\n"


def test_sync_tells_what_is_stuck(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        write(f"{client.server.root}/f", "base\n")
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("f"), "mine\n")
        write(f"{client.server.root}/f", "theirs!\n")
        client.online()
        said = client.fails("sync", client.mountpoint, "--wait")
        assert "conflict" in said


def volumes_of(client: Client) -> list[dict[str, object]]:
    answer = json.loads(client.awayfs("volumes", "--json"))
    return list(answer["volumes"] if isinstance(answer, dict) else answer)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False
