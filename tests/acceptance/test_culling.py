"""A cache that is a part of what goes through it, and a disk that is really full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, eventually, make_server, mounted, needs_fuse, run

pytestmark = needs_fuse

MIB = 1 << 20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount an image")


def read_past_the_kernel(path: str) -> bytes | None:
    """The content as the daemon gives it, past the kernel's memory; None if it is not here."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        assert error.errno in (errno.ENODATA, errno.ENETDOWN), error
        return None
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.read(fd, MIB)
    except OSError as error:
        assert error.errno == errno.ENODATA, error
        return None
    finally:
        os.close(fd)


def tree_of_small_files(root: str, directories: int, files: int) -> dict[str, bytes]:
    """Some KiB each at most, every tenth with a word to look for; by relative path."""
    rng, made = random.Random(7), {}
    for directory in range(directories):
        os.makedirs(f"{root}/d{directory:03}")
        for number in range(files):
            path = f"d{directory:03}/f{number:03}"
            data = f"{path} {'needle' if number % 10 == 0 else 'hay'}\n" * rng.randint(1, 200)
            made[path] = data.encode()
            with open(f"{root}/{path}", "wb") as file:
                file.write(made[path])
    return made


class Watch:
    """Looks at the cache while programs run."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ending = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.5):
            self.most = max(self.most, self._client.status()["cache"]["bytes"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tree_ten_times_as_large_as_the_cache(tmp_path: Path) -> None:
    """Programs run; the limit holds and pins stay; ``hoard --check`` is right about every file."""
    directories, files = 40, 250
    server = make_server("dir", str(tmp_path))
    made = tree_of_small_files(server.root, directories, files)
    limit = sum(map(len, made.values())) // 10
    client = Client(str(tmp_path), server)
    try:
        client.mount(f"cache-size={limit},fresh=600")
        client.awayfs("pin", client.path("d007"))
        with Watch(client) as watch:
            found = run("find", client.mountpoint, "-type", "f", timeout=300)
            assert len(found.splitlines()) == len(made)
            found = run("grep", "-rl", "needle", client.mountpoint, timeout=600)
            assert len(found.splitlines()) == len(made) // 10
            for directory in range(3):
                client_dir = client.path(f"d{directory:03}")
                run("sh", "-c", f"cd {client_dir} && sort f0* > sorted && wc -l f* > count")
            run("tar", "-cf", "/dev/null", client.path("d020"), client.path("d021"))
        assert 0 < watch.most <= limit
        client.sync()
        for directory in range(3):
            for name in ("sorted", "count"):
                path = f"d{directory:03}/{name}"
                made[path] = Path(server.root, path).read_bytes()
        server.cut()
        eventually(lambda: client.status()["mode"] == "disconnected", "being offline", 60)
        missing = content_missing(client)
        assert not any(path.startswith("d007/") for path in missing)
        assert 0 < len(missing) < len(made)
        for path, data in made.items():
            here = read_past_the_kernel(client.path(path))
            assert here == (None if path in missing else data), path
    finally:
        with contextlib.suppress(FileNotFoundError):
            server.restore()
        client.close()
        server.close()


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Client]:
    """A volume whose state is on an ext4 file system of 48 MB in a file; not mounted yet."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is missing")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    client = Client(str(tmp_path), make_server("dir", str(tmp_path)))
    run("mount", "-o", "loop", str(image), client.state)
    try:
        os.chmod(client.state, 0o700)
        yield client
    finally:
        client.close()
        eventually(lambda: _unmounted(client.state), "the end of whoever uses it")


def _unmounted(place: str) -> bool:
    run("umount", place, check=False)
    return not os.path.ismount(place)


def content_missing(client: Client) -> set[str]:
    """The files of which ``hoard --check`` says that their content is not all here."""
    said = client.awayfs("hoard", client.mountpoint, "--check", "--json", timeout=300)
    reply = json.loads(said)
    return {one["path"] for one in reply["missing"] if "content" in one["why"]}


def percent_free(place: str) -> float:
    space = os.statvfs(place)
    return 100 * space.f_bavail / space.f_blocks


def filled(client: Client, prefix: str, size: int, most: int) -> dict[str, bytes]:
    """Write files until there is no room; what was acknowledged."""
    written: dict[str, bytes] = {}
    for number in range(most):
        name, data = f"{prefix}{number}", os.urandom(size)
        try:
            fd = os.open(client.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
        done = 0
        try:
            while done < size:
                done += os.write(fd, data[done : done + 128 * 1024])
            os.fsync(fd)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            written[name] = data[:done]
            break
        finally:
            os.close(fd)  # never the one to tell of it
        written[name] = data
    else:
        pytest.fail("it never became full")
    return written


@as_root
def test_a_disk_that_is_really_full(cramped: Client) -> None:
    client = cramped
    share = Path(client.server.root)
    clean = {f"clean{number}": os.urandom(MIB) for number in range(12)}
    for name, data in clean.items():
        (share / name).write_bytes(data)
    (share / "pinned").write_bytes(b"p" * MIB)
    client.mount("fresh=600")
    os.listdir(client.mountpoint)
    client.awayfs("pin", client.path("pinned"))
    for name, data in clean.items():
        assert Path(client.path(name)).read_bytes() == data
    client.offline()
    os.statvfs(client.mountpoint)
    time.sleep(1.0)  # what may go is counted beside the requests
    told = os.statvfs(client.mountpoint)
    promised = told.f_bavail * told.f_frsize
    written = filled(client, "new", MIB, 60)
    size = sum(map(len, written.values()))
    assert promised - 3 * MIB <= size <= promised + 3 * MIB, (promised, size)
    for name, data in written.items():
        assert Path(client.path(name)).read_bytes() == data
    assert Path(client.path("pinned")).read_bytes() == b"p" * MIB
    missing = content_missing(client)
    assert missing and missing <= set(clean)
    last = client.path(sorted(written)[0])
    with open(last, "r+b") as file:
        with pytest.raises(OSError) as full:
            os.posix_fallocate(file.fileno(), 0, 30 * MIB)
        assert full.value.errno == errno.ENOSPC
        file.write(b"in place")  # takes no more room
    assert os.stat(last).st_size == len(written[os.path.basename(last)])
    for name in list(written)[1:4]:  # room is made
        os.unlink(client.path(name))
        del written[name]
    with open(client.path("after"), "wb") as file:
        file.write(b"a" * MIB)
    client.online()
    client.sync()
    written[os.path.basename(last)] = b"in place" + written[os.path.basename(last)][8:]
    for name, data in {**written, **clean, "after": b"a" * MIB}.items():
        assert (share / name).read_bytes() == data, name
    eventually(lambda: percent_free(client.state) > 5, "culling")
    assert Path(client.path("clean0")).read_bytes() == clean["clean0"]
    client.umount()
    volume = os.listdir(f"{client.state}/awayfs/volumes")[0]
    client.awayfs("fsck", volume)


@as_root
def test_more_than_the_disk_goes_through_it(cramped: Client) -> None:
    """While connected, what was sent makes room for what comes; and errors have their own name."""
    client = cramped
    share = Path(client.server.root)
    client.mount("fresh=600,errno=distinct")
    os.listdir(client.mountpoint)
    data = {f"f{number}": os.urandom(2 * MIB) for number in range(30)}
    for name, content in data.items():
        with open(client.path(name), "wb") as file:
            file.write(content)
    client.sync()
    for name, content in data.items():
        assert (share / name).read_bytes() == content
    for name, content in data.items():
        assert Path(client.path(name)).read_bytes() == content
    client.offline()
    with pytest.raises(OSError) as full, open(client.path("large"), "wb", buffering=0) as file:
        for _ in range(60):
            file.write(bytes(MIB))
    assert full.value.errno == 504
    assert "unpin" in client.awayfs("why", client.path("large"))


def test_what_is_never_cached_is_gone_after_its_use(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        share = Path(client.server.root)
        (share / "media").mkdir()
        for name in ("media/film", "text"):
            (share / name).write_bytes(b"x" * 3 * MIB)
        os.setxattr(client.path("media"), "user.awayfs.never-cache", b"on")
        for name in ("media/film", "text"):
            run("cmp", client.path(name), str(share / name))
        eventually(lambda: client.status()["cache"]["bytes"] == 3 * MIB, "the film to go")
        Path(client.path("media/own")).write_bytes(b"y" * 1000)
        client.offline()
        assert read_past_the_kernel(client.path("text")) is not None
        with pytest.raises(OSError) as gone:
            Path(client.path("media/film")).read_bytes()
        assert gone.value.errno == errno.ENODATA
        client.online()
        client.sync()
        assert (share / "media/own").read_bytes() == b"y" * 1000
        assert client.status()["cache"]["bytes"] <= 3 * MIB + 1000


def test_statfs_tells_what_the_cache_can_take(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "cache-size=4M") as client:
        os.listdir(client.mountpoint)
        client.offline()
        told = os.statvfs(client.mountpoint)
        assert told.f_blocks * told.f_frsize == 4 * MIB
        assert told.f_bavail * told.f_frsize == 4 * MIB
        Path(client.path("f")).write_bytes(b"1" * MIB)
        told = os.statvfs(client.mountpoint)
        assert told.f_bavail * told.f_frsize <= 3 * MIB
        with pytest.raises(OSError) as full:
            os.truncate(client.path("f"), 5 * MIB)
        assert full.value.errno == errno.ENOSPC
        assert os.stat(client.path("f")).st_size == MIB
