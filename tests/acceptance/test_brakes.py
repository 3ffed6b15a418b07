"""What looks like an accident stops a volume on a real mount, says so, and goes on when told."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator

import pytest

from tests.harness import Client, SftpServer, eventually, mounted, needs_fuse

pytestmark = needs_fuse
FILES = 30
HOUR_S = 3600


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    """A mount that sees at once what happens on the server, which holds thirty small files."""
    with mounted(request.param, str(tmp_path)) as client:
        client.umount()
        fill(client, "work/deep")
        write(f"{client.server.root}/aside", "beside it")
        client.mount("fresh=0")
        for directory, _, files in os.walk(client.mountpoint):
            for name in files:
                read(os.path.join(directory, name))
        yield client


def fill(client: Client, directory: str) -> None:
    os.makedirs(f"{client.server.root}/{directory}", exist_ok=True)
    for number in range(FILES):
        write(f"{client.server.root}/{directory}/f{number}", f"content {number}")


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def look(path: str) -> list[str]:
    """A listing that may be refused."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def assert_stopped(client: Client, why: str, unsent: str = "", seen_at: str = "") -> None:
    """Nothing moves, every cached file is there, and the reason is told in three places.

    ``seen_at`` is looked at again meanwhile: on a busy machine the first look may come too late.
    """

    def is_stopped() -> bool:
        if seen_at:
            look(seen_at)
        return bool(client.status()["mode"] == "stopped")

    eventually(is_stopped, "the stop")
    assert why in client.status()["cause"]
    assert why in client.awayfs("why", client.path("aside"))
    if unsent:
        assert not os.path.exists(f"{client.server.root}/{unsent}")
        client.awayfs("sync", client.mountpoint, "--wait", check=False)
        assert not os.path.exists(f"{client.server.root}/{unsent}")


def test_most_of_the_volume_gone(client: Client) -> None:
    shutil.rmtree(f"{client.server.root}/work")
    look(client.mountpoint)
    write(client.path("unsent"), "made meanwhile")
    assert_stopped(client, "more than half of the volume is gone", "unsent", client.mountpoint)
    assert read(client.path("work/deep/f7")) == "content 7"
    client.awayfs("sync", "--accept-deletions", "--wait", client.mountpoint)
    eventually(lambda: look(client.mountpoint) == ["aside", "unsent"], "what is left")
    assert read(f"{client.server.root}/unsent") == "made meanwhile"


def test_a_stop_outlives_the_daemon(tmp_path: object) -> None:
    """What is unsent does not go out in the moment between two daemons, either."""
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        fill(client, "work/deep")
        for directory, _, _ in os.walk(client.mountpoint):
            look(directory)
        shutil.rmtree(f"{client.server.root}/work")
        look(client.mountpoint)
        write(client.path("unsent"), "made meanwhile")
        assert_stopped(client, "more than half")
        client.kill()
        client.mount()
        assert_stopped(client, "more than half", "unsent")
        assert "more than half" in client.fails("online", client.mountpoint)
        client.awayfs("sync", "--accept-deletions", "--wait", client.mountpoint)
        eventually(lambda: look(client.mountpoint) == ["unsent"], "what is left")
        client.umount()
        client.mount()
        assert client.status()["mode"] == "connected"


def test_an_emptied_root(client: Client) -> None:
    for name in os.listdir(client.server.root):
        os.rename(f"{client.server.root}/{name}", f"{client.server.root}.{name}")
    look(client.mountpoint)
    assert_stopped(client, "the volume is empty", seen_at=client.mountpoint)
    assert read(client.path("aside")) == "beside it"
    for name in ("work", "aside"):
        os.rename(f"{client.server.root}.{name}", f"{client.server.root}/{name}")
    client.awayfs("sync", "--accept-deletions", "--wait", client.mountpoint)
    assert read(client.path("work/deep/f7")) == "content 7"


@pytest.mark.parametrize("kind", ["dir", "sftp"])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_emptied_root_that_something_was_sent_to(
    kind: str, restarted: bool, tmp_path: object
) -> None:
    """With nothing in it but what went out since, it is as empty as before."""
    with mounted(kind, str(tmp_path), "fresh=60") as client:
        write(f"{client.server.root}/f", "one")
        write(f"{client.server.root}/g", "two")
        client.umount()
        client.mount("fresh=60")
        assert [read(client.path(name)) for name in look(client.mountpoint)] == ["one", "two"]
        for name in ("f", "g"):
            os.unlink(client.on_server(name))
        write(client.path("sent"), "made meanwhile")
        client.sync(check=False)
        if restarted:
            client.kill()
            client.mount("fresh=60")
        else:
            client.offline()
            client.online()
        assert_stopped(client, "the volume is empty", seen_at=client.mountpoint)
        assert read(client.path("f")) == "one"
        client.awayfs("sync", "--accept-deletions", "--wait", client.mountpoint)
        eventually(lambda: look(client.mountpoint) == ["sent"], "what is left")
        os.unlink(client.on_server("sent"))  # one thing alone may go on purpose
        client.offline()
        client.online()
        eventually(lambda: look(client.mountpoint) == [], "nothing is left")


def test_most_of_the_volume_became_something_else(client: Client) -> None:
    root = f"{client.server.root}/work/deep"
    for name in os.listdir(root):
        os.unlink(f"{root}/{name}")
        os.symlink("/nowhere", f"{root}/{name}")
    look(client.path("work/deep"))
    assert_stopped(client, "became another kind of thing", seen_at=client.path("work/deep"))
    assert read(client.path("work/deep/f7")) == "content 7"
    client.awayfs("sync", "--accept-deletions", "--wait", client.mountpoint)
    eventually(lambda: os.path.islink(client.path("work/deep/f7")), "the links")


def test_a_directory_that_is_moved_is_not_deleted(tmp_path: object) -> None:
    """By its id; into a directory that nobody has seen yet."""
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        fill(client, "work/deep")
        inode = {
            os.lstat(os.path.join(d, f)).st_ino
            for d, _, fs in os.walk(client.mountpoint)
            for f in fs
        }
        os.makedirs(f"{client.server.root}/new/place")
        os.rename(f"{client.server.root}/work", f"{client.server.root}/new/place/work")
        assert sorted(os.listdir(client.mountpoint)) == ["new"]
        assert client.status()["mode"] == "connected"
        moved = client.path("new/place/work/deep")
        assert {os.lstat(f"{moved}/f{n}").st_ino for n in range(FILES)} == inode


def test_a_directory_that_is_moved_over_sftp_asks(tmp_path: object) -> None:
    """Without ids a rename is a removal and something new: what is not proved stops."""
    with mounted("sftp", str(tmp_path), "fresh=0") as client:
        fill(client, "work/deep")
        for directory, _, _ in os.walk(client.mountpoint):
            look(directory)
        os.rename(f"{client.server.root}/work", f"{client.server.root}/moved")
        look(client.mountpoint)
        eventually(lambda: client.status()["mode"] == "stopped", "the stop")


def put_back(root: str) -> None:
    """As ``rsync -a`` from last week's backup leaves it: other times, each its own."""
    for number, (directory, names, files) in enumerate(os.walk(root, topdown=False)):
        for index, name in enumerate([*files, *names]):
            path = os.path.join(directory, name)
            back = 7 * 24 * HOUR_S + number * 100 + index * 7
            when = os.lstat(path).st_mtime - back
            os.utime(path, (when, when))


def test_a_server_restored_from_a_backup(client: Client) -> None:
    client.offline()
    write(client.path("work/deep/f7"), "edited here")
    write(client.path("unsent"), "made here")
    write(f"{client.server.root}/work/deep/f8", "last week's")
    put_back(client.server.root)
    assert "--accept-server" in client.fails("online", client.mountpoint)
    assert_stopped(client, "an older state than before", "unsent")
    assert read(f"{client.server.root}/work/deep/f7") == "content 7"
    client.awayfs("online", client.mountpoint, "--accept-server")
    client.sync()
    assert client.conflicts() == []
    assert read(f"{client.server.root}/work/deep/f7") == "edited here"
    assert read(client.path("work/deep/f8")) == "last week's"
    client.umount()
    client.mount()
    assert client.status()["mode"] == "connected"


def test_a_snapshot_rolled_back_shows_in_change_times(tmp_path: object) -> None:
    """What cannot be set on purpose here is told the other way round: we saw it an hour later."""
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        write(f"{client.server.root}/f", "as it was")
        assert read(client.path("f")) == "as it was"
        client.umount()
        with sqlite3.connect(database(client)) as known:
            known.execute(
                "UPDATE server_nodes SET ctime_ns = ctime_ns + ? WHERE kind != 16384",
                (HOUR_S * 10**9,),
            )
        client.mount()
        assert client.status()["mode"] == "stopped"
        assert "an older state than before" in client.status()["cause"]
        assert read(client.path("f")) == "as it was"


def test_a_server_whose_clock_changed_its_zone_is_no_older(client: Client) -> None:
    """Modification times an hour off, all of them: the same files, no stop, no conflict."""
    client.offline()
    write(client.path("work/deep/f7"), "edited here")
    for directory, names, files in os.walk(client.server.root, topdown=False):
        for name in [*files, *names]:
            path = os.path.join(directory, name)
            when = os.lstat(path).st_mtime_ns - HOUR_S * 10**9
            os.utime(path, ns=(when, when))
    client.online()
    client.sync()
    assert client.conflicts() == []
    assert read(f"{client.server.root}/work/deep/f7") == "edited here"
    assert read(client.path("work/deep/f8")) == "content 8"


def database(client: Client) -> str:
    volumes = os.path.join(client.state, "awayfs", "volumes")
    (volume,) = os.listdir(volumes)
    return os.path.join(volumes, volume, "volume.db")


def test_a_client_restored_from_an_image(tmp_path: object) -> None:
    """It would send again what it has sent and taken back since."""
    with mounted("dir", str(tmp_path)) as client:
        client.offline()
        write(client.path("draft"), "to be sent, and removed again")
        client.umount()
        shutil.copytree(client.state, client.state + ".image")
        client.mount()
        client.online()
        client.sync()
        os.unlink(client.path("draft"))
        client.sync()
        client.umount()
        shutil.rmtree(client.state)
        os.rename(client.state + ".image", client.state)
        client.mount()
        assert "--accept-server" in client.fails("online", client.mountpoint)
        assert client.status()["mode"] == "stopped"
        assert "knows nothing of" in client.status()["cause"]
        assert not os.path.exists(f"{client.server.root}/draft")
        client.awayfs("online", client.mountpoint, "--accept-server")
        client.sync()
        assert read(f"{client.server.root}/draft") == "to be sent, and removed again"


def test_counting_sessions_is_nobodys_business(tmp_path: object) -> None:
    """The attribute is not shown, and not set on a share that is only read."""
    with mounted("dir", str(tmp_path)) as client:

        def noted() -> list[str]:
            return [n for n in os.listxattr(client.server.root) if n.startswith("user.awayfs.")]

        write(f"{client.server.root}/theirs", "to be read")
        assert read(client.path("theirs")) == "to be read"
        client.sync()
        assert noted() == []
        for number in (1, 1, 2):
            write(client.path("ours"), f"sent {number}")
            client.sync()
            (name,) = noted()
            assert os.getxattr(client.server.root, name) == b"1"
        assert os.listxattr(client.mountpoint) == []
        client.offline()
        client.online()
        write(client.path("ours"), "sent in another session")
        client.sync()
        assert os.getxattr(client.server.root, name) == b"2"


def test_a_server_without_attributes_is_served(tmp_path: object) -> None:
    with mounted("sftp", str(tmp_path)) as client:
        assert isinstance(client.server, SftpServer)
        write(client.path("f"), "sent")
        client.sync()
        assert os.listxattr(client.server.root) == []
