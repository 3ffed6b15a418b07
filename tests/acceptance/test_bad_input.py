"""What people and servers get wrong: one line, the right exit status, nothing lost or left over."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness import Client, DirServer, eventually, mounted, needs_fuse, run
from tests.sshd import Sshd, free_port, make_key, needs_sshd, serving

pytestmark = needs_fuse
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def write(path: str, data: str | bytes) -> None:
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture
def client(tmp_path: object) -> Iterator[Client]:
    """A client of a directory, not mounted yet."""
    one = Client(str(tmp_path), DirServer(str(tmp_path)))
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd"))) as server:
        yield server


def refused(client: Client, *args: str, code: int = 1, **more: object) -> str:
    """Run what must fail with one line; the line. Nothing may stay behind."""
    done = subprocess.run(
        [sys.executable, "-m", "awayfs", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=client.env,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("awayfs: ")
    assert "Traceback" not in lines[0]
    assert lines[0].isprintable()
    return lines[0]


def refused_mount(client: Client, url: str, options: str = "", code: int = 1) -> str:
    """A mount that must not come about, and leaves no mount and no process."""
    extra = ["-o", options] if options else []
    line = refused(client, "mount", url, client.mountpoint, *extra, code=code)
    assert not client.is_mounted()
    eventually(lambda: not processes_of(client), "the end of all processes")
    return line


def processes_of(client: Client) -> list[int]:
    """Daemons and workers that work for this client's state directory."""
    wanted = f"XDG_STATE_HOME={client.state}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def files_below(path: str) -> list[str]:
    return [name for _, _, names in os.walk(path) for name in names]


class TestUrlsAndOptions:
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://host/path",
            "smb://host/share",
            "nonsense",
            "dir:",
            "dir:/a/../b",
            "dir:/a\nb",
            "sftp:/no/host",
            "sftp://host:99999/p",
            "sftp://user:secret@host/p",
        ],
    )
    def test_urls(self, client: Client, url: str) -> None:
        line = refused(client, "mount", url, client.mountpoint, code=2)
        assert "secret" not in line
        assert files_below(client.state) == []

    @pytest.mark.parametrize(
        "options",
        ["nonsense", "fresh=soon", "errno=foo", "cache-size=12q", "writes=", "timeout=0"],
    )
    def test_options(self, client: Client, options: str) -> None:
        place = client.mountpoint
        line = refused(client, "mount", client.server.url, place, "-o", options, code=2)
        assert options.partition("=")[0] in line
        assert files_below(client.state) == []

    @pytest.mark.parametrize(
        "words", [["mount"], ["frobnicate"], ["resolve", "x", "--keep", "what"], ["pin"]]
    )
    def test_commands(self, client: Client, words: list[str]) -> None:
        refused(client, *words, code=2)


class TestServers:
    def test_directories(self, client: Client) -> None:
        assert isinstance(client.server, DirServer)
        write(f"{client.base}/file", "x")
        for path in ("missing", "file"):
            line = refused_mount(client, f"dir:{client.base}/{path}")
            assert path in line
        assert set(files_below(client.state)) == {"daemon.log"}

    @pytest.mark.sshd
    @pytest.mark.parametrize("trouble", ["changed", "unknown", "key", "missing", "file", "port"])
    def test_ssh(self, trouble: str, client: Client, sshd: Sshd, tmp_path: object) -> None:
        options, port, path = dict(sshd.options), sshd.port, client.base
        if trouble in ("changed", "unknown"):
            make_key(f"{tmp_path}/other")
            key = " ".join(read(f"{tmp_path}/other.pub").decode().split()[:2])
            host = "elsewhere" if trouble == "unknown" else f"[127.0.0.1]:{port}"
            write(f"{tmp_path}/hosts", f"{host} {key}\n")
            options["known_hosts"] = f"{tmp_path}/hosts"
        elif trouble == "key":
            make_key(f"{tmp_path}/stranger")
            options["identity"] = f"{tmp_path}/stranger"
        elif trouble == "port":
            port = free_port()
        else:
            write(f"{tmp_path}/file", "x")
            path = f"{tmp_path}/{trouble}"
        url = f"sftp://{sshd.user}@127.0.0.1:{port}{path}"
        given = ",".join(f"{name}={value}" for name, value in options.items())
        line = refused_mount(client, url, given)
        expected = {
            "changed": "another host key",
            "unknown": "not in known_hosts",
            "key": "none of the keys",
            "missing": "not there",
            "file": "not a directory",
            "port": "refuses connections",
        }
        assert expected[trouble] in line
        assert set(files_below(client.state)) == {"daemon.log"}


class TestMountPoints:
    def test_missing_file_and_not_empty(self, client: Client) -> None:
        url = client.server.url
        write(f"{client.home}/file", "x")
        os.mkdir(f"{client.home}/full")
        write(f"{client.home}/full/x", "x")
        for name, said in (("gone", "exist"), ("file", "directory"), ("full", "empty")):
            line = refused(client, "mount", url, f"{client.home}/{name}")
            assert said in line
        assert files_below(client.state) == []

    def test_taken_and_dead(self, client: Client) -> None:
        client.mount()
        other = f"{client.home}/other"
        os.mkdir(other)
        assert "already mounted" in refused(client, "mount", client.server.url, client.mountpoint)
        assert "already mounted" in refused(client, "mount", client.server.url, other)
        os.mkdir(client.path("inside"))
        assert "inside" in refused(client, "mount", f"dir:{client.home}", client.path("inside"))
        write(client.path("kept"), "x")
        os.kill(client.pid, signal.SIGKILL)
        eventually(lambda: not processes_of(client), "the worker's end")
        line = refused(client, "mount", f"dir:{client.home}", client.mountpoint)
        assert f"awayfs umount {client.mountpoint}" in line
        status = json.loads(client.awayfs("status", "--json", check=False))
        mine = [one for one in status if one["mountpoint"] == client.mountpoint]
        assert [one["mode"] for one in mine] == [None]
        assert "cleaned up" in client.umount()
        client.mount()
        assert read(client.path("kept")) == b"x"

    def test_what_could_not_be_begun_leaves_no_dead_mount(self, client: Client) -> None:
        """Mounted already, but no command could find it: the runtime directory is full."""
        client.mount()
        client.umount()
        (volume,) = os.listdir(f"{client.state}/awayfs/volumes")
        in_the_way = f"{client.runtime}/awayfs/{volume}.json.new"
        os.mkdir(in_the_way)
        refused(client, "mount", client.server.url, client.mountpoint)
        assert not client.is_mounted() and os.listdir(client.mountpoint) == []
        os.rmdir(in_the_way)
        client.mount()
        assert client.status()["mode"] == "connected"

    def test_second_daemon_of_one_volume(self, client: Client) -> None:
        """Commands that cannot see the first one (another runtime directory) are kept out too."""
        client.mount()
        write(client.path("f"), "x")
        other = Client(client.base, client.server, "other")
        other.environment["XDG_STATE_HOME"] = client.state
        line = refused(other, "mount", client.server.url, other.mountpoint)
        assert f"in use by process {client.pid}" in line
        assert not other.is_mounted()
        assert client.status()["mode"] == "connected"
        assert read(client.path("f")) == b"x"

    def test_busy(self, client: Client) -> None:
        client.mount()
        write(client.path("f"), "x")
        with open(client.path("f")) as file:
            assert "in use" in refused(client, "umount", client.mountpoint)
            assert client.status()["mode"] == "connected"
            assert file.read() == "x"
        client.umount()
        assert not client.is_mounted()
        assert "no awayfs mount" in refused(client, "umount", client.mountpoint)

    def test_lazily_while_busy(self, client: Client) -> None:
        client.mount()
        write(client.path("f"), "x")
        with open(client.path("f")) as file:
            client.awayfs("umount", "--lazy", client.mountpoint)
            assert not client.is_mounted()
            assert file.read() == "x"
            assert client.awayfs("status", check=False)
        eventually(lambda: not processes_of(client), "the daemon's end")

    @pytest.mark.parametrize(
        "command",
        [
            *(["status"], ["pin"], ["unpin"], ["sync"], ["why"], ["hoard"], ["conflicts"]),
            *(["resolve", "--keep", "local"], ["umount"]),
        ],
    )
    def test_paths_outside(self, client: Client, command: list[str]) -> None:
        line = refused(client, *command[:1], client.home, *command[1:], code=1)
        assert client.home in line

    @pytest.mark.parametrize("command", ["online", "offline", "auto", "cache"])
    @pytest.mark.parametrize("scope", ["/", "server:nowhere", "server:", "no-such-place"])
    def test_scopes_that_mean_nothing(self, client: Client, command: str, scope: str) -> None:
        line = refused(client, command, scope, code=2)
        assert scope in line

    @pytest.mark.parametrize(
        "words", [["--for", "1h", "--until", "23:59"], ["--until", "2020-01-01 08:00"]]
    )
    def test_times_that_mean_nothing(self, client: Client, words: list[str]) -> None:
        client.mount()
        refused(client, "offline", *words, code=2)
        assert client.status()["mode"] == "connected"


def _python_for(user: list[str]) -> list[str]:
    """An interpreter with awayfs that another user may run: ours, or Debian's with our modules."""
    modules = ":".join(path for path in sys.path if path.endswith(("site-packages", "src")))
    debian = ["env", f"PYTHONPATH={modules}", "/usr/bin/python3"]
    for python in ([sys.executable], debian):
        tried = [*user, *python, "-c", "import awayfs.cli.main, msgspec"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("another user can run neither this Python nor Debian's with its modules")


class TestStateDirectory:
    def test_open_to_others(self, client: Client) -> None:
        os.mkdir(f"{client.state}/awayfs", 0o700)
        os.chmod(f"{client.state}/awayfs", 0o755)
        line = refused_mount(client, client.server.url)
        assert "chmod 700" in line

    @as_root
    def test_not_writable(self, client: Client) -> None:
        """As a plain user, whom modes stop; before /dev/fuse is even looked at."""
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        python = _python_for(user)
        place = "/tmp/awayfs-not-writable"
        os.makedirs(f"{place}/mnt", exist_ok=True)
        try:
            os.chown(f"{place}/mnt", 65534, 65534)
            environment = {**client.env, "XDG_STATE_HOME": place, "XDG_RUNTIME_DIR": ""}
            done = subprocess.run(
                [*user, *python, "-m", "awayfs", "mount", "dir:/tmp", f"{place}/mnt"],
                capture_output=True,
                text=True,
                timeout=60,
                env=environment,
            )
        finally:
            shutil.rmtree(place)
        assert done.returncode == 1, done.stderr
        (line,) = done.stderr.splitlines()
        assert "XDG_STATE_HOME" in line

    @as_root
    def test_full_disk(self, client: Client) -> None:
        with small_disk(client.state, "16k"):
            line = refused_mount(client, client.server.url)
            assert "space" in line.lower(), line

    @as_root
    def test_disk_fills_up_later(self, client: Client) -> None:
        """A write that finds no room is refused; what was acknowledged reaches the server."""
        with small_disk(client.state, "8m"):
            client.mount()
            os.listdir(client.mountpoint)
            client.offline()
            write(client.path("early"), "acknowledged\n")
            with pytest.raises(OSError) as caught, open(client.path("big"), "wb") as file:
                for _ in range(16):
                    file.write(bytes(1 << 20))
                    file.flush()
            assert caught.value.errno == errno.ENOSPC
            assert client.status()["mode"] == "disconnected"
            run("mount", "-o", "remount,size=64m", client.state)
            os.unlink(client.path("big"))
            write(client.path("late"), "room again\n")
            client.online()
            client.sync()
            assert read(f"{client.server.root}/early") == b"acknowledged\n"
            assert read(f"{client.server.root}/late") == b"room again\n"
            client.umount()

    @as_root
    def test_what_frees_room_works_on_a_full_disk(self, client: Client) -> None:
        """Others have filled the disk: nothing can be added, removing and unmounting work."""
        with small_ext4(client.state, 48 << 20):
            client.mount()
            client.offline()
            os.mkdir(client.path("d"))
            names = [f"d/f{number}" for number in range(400)]
            for name in [*names, "kept", "cut"]:
                write(client.path(name), "acknowledged\n" * 100)
            fill_up(f"{client.state}/others")
            with pytest.raises(OSError) as caught:
                for number in range(1000):
                    write(client.path(f"new{number}"), bytes(10_000))
            assert caught.value.errno == errno.ENOSPC
            fill_up(f"{client.state}/more")
            for name in names:
                os.unlink(client.path(name))
            os.rmdir(client.path("d"))
            os.truncate(client.path("cut"), 10)
            with pytest.raises(OSError) as caught, open(client.path("kept"), "ab") as file:
                file.write(bytes(1 << 20))
                file.flush()
            assert caught.value.errno == errno.ENOSPC
            assert "kept" in client.umount()
            assert not client.is_mounted()
            for name in ("others", "more"):
                os.unlink(f"{client.state}/{name}")
            client.mount()
            client.online()
            client.sync()
            root = client.server.root
            assert not os.path.exists(f"{root}/d")
            assert os.path.getsize(f"{root}/cut") == 10
            assert read(f"{root}/kept").startswith(b"acknowledged\n" * 100)
            write(client.path("late"), "room again\n")
            client.umount()

    def test_damaged_database(self, client: Client) -> None:
        client.mount()
        os.listdir(client.mountpoint)
        client.offline()
        for number in range(200):
            write(client.path(f"f{number}"), f"content {number}\n")
        client.umount()
        (volume,) = os.listdir(f"{client.state}/awayfs/volumes")
        database = f"{client.state}/awayfs/volumes/{volume}/volume.db"
        with open(database, "r+b") as file:
            size = os.path.getsize(database)
            file.seek(size // 2 // 2048 * 2048)
            file.write(os.urandom(2048))
        write(f"{os.path.dirname(database)}/running", "")
        done = subprocess.run(
            [sys.executable, "-m", "awayfs", "mount", client.server.url, client.mountpoint],
            capture_output=True,
            text=True,
            timeout=60,
            env=client.env,
        )
        assert done.returncode == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert "damaged" in line
        assert "set aside" in line
        aside = line.partition("set aside in ")[2].partition(";")[0]
        assert os.path.isdir(aside)
        client.online()
        client.sync(check=False)
        sent = {n for n in os.listdir(client.server.root) if n.startswith("f")}
        kept = os.walk(os.path.dirname(database))
        contents = {
            read(os.path.join(place, name)) for place, _, names in kept for name in names
        } | {read(f"{client.server.root}/{name}") for name in sent}
        lost = [n for n in range(200) if f"content {n}\n".encode() not in contents]
        assert not lost

    def test_cache_smaller_than_a_pinned_file(self, client: Client) -> None:
        write(f"{client.server.root}/big", os.urandom(4 << 20))
        write(f"{client.server.root}/small", "small\n")
        client.mount("cache-size=1M")
        line = refused(client, "pin", client.path("big"))
        assert "limit" in line or "cache" in line
        client.awayfs("pin", client.path("small"))
        client.offline()
        assert read(client.path("small")) == b"small\n"


@contextlib.contextmanager
def small_ext4(directory: str, size: int) -> Iterator[None]:
    """A small real file system on a directory, which blocks are given out by as on any disk."""
    image = f"{directory}.img"
    with open(image, "wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", image)
    run("mount", "-o", "loop", image, directory)
    try:
        os.rmdir(f"{directory}/lost+found")
        os.chmod(directory, 0o700)
        yield
    finally:
        run("umount", "-l", directory)


def fill_up(path: str) -> None:
    """Take up all the room there is."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
        os.fsync(file.fileno())


@contextlib.contextmanager
def small_disk(place: str, size: str) -> Iterator[None]:
    """A file system of few bytes, mode 0700, at ``place``."""
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small", place)
    try:
        yield
    finally:
        run("umount", "-l", place)


HOSTILE = [
    b"new\nline",
    b"\x1b[31mred",
    b"invalid \xff\xfe utf-8",
    b"-rf",
    b"--help",
    b"x" * 255,
    b" ",
    b"tab\tand\rreturn",
    "\u202eright to left".encode(),
    b"*",
    b"Case",
    b"cASE",
    b"%41",
    b"a:b",
    b"\\",
]
RESERVED = [b".awayfs", b".awayfs-x.new", b".awayfs-0123456789.old"]


@needs_sshd[1]
@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_hostile_names(kind: str, tmp_path: object) -> None:
    with mounted(kind, str(tmp_path)) as client:
        root, top = os.fsencode(client.server.root), os.fsencode(client.mountpoint)
        for name in [*HOSTILE, *RESERVED]:
            with open(os.path.join(root, name), "wb") as file:
                file.write(b"of " + name)
        assert sorted(os.listdir(top)) == sorted(HOSTILE)
        for name in HOSTILE:
            with open(os.path.join(top, name), "rb") as file:
                assert file.read() == b"of " + name
        client.awayfs("pin", client.mountpoint)
        client.offline()
        for name in HOSTILE:
            with open(os.path.join(top, name), "ab") as file:
                file.write(b", changed")
            with open(os.path.join(root, name), "ab") as file:
                file.write(b", otherwise") if name in HOSTILE[:3] else None
        for command in (["journal", "list"], ["pins"], ["hoard", "--check"], ["diff"]):
            check_harmless(client.awayfs(*command, check=False))
        check_harmless(client.awayfs("why", client.path("no\x1bsuch\nname")))
        refused(client, "unpin", client.path("no\x1bsuch\nname"))
        client.online()
        client.sync(check=False)
        shown = client.awayfs("conflicts", client.mountpoint)
        check_harmless(shown)
        assert len(client.conflicts()) == 3
        for name in HOSTILE[:3]:
            client.awayfs("resolve", os.fsdecode(os.path.join(top, name)), "--keep", "local")
        client.sync()
        for name in HOSTILE:
            with open(os.path.join(root, name), "rb") as file:
                assert file.read() == b"of " + name + b", changed"
        for name in RESERVED:
            assert os.path.exists(os.path.join(root, name)), "it is not ours to remove"


def check_harmless(output: str) -> None:
    """No control characters but newlines, and tabs (of contents); nothing that is not text."""
    for line in output.splitlines():
        assert line.replace("\t", " ").isprintable(), repr(line)
