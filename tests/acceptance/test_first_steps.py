"""The main job in small: mount, pin, cut, work, come back, resolve."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.harness import Client, assert_same_tree, eventually, mounted, needs_fuse, tree

pytestmark = needs_fuse


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_offline_work_reaches_the_server(kind: str, tmp_path: object) -> None:
    with mounted(kind, str(tmp_path)) as client:
        write(f"{client.server.root}/notes.txt", "one\n")
        assert read(client.path("notes.txt")) == "one\n"
        client.awayfs("pin", client.mountpoint)
        client.server.cut()
        client.awayfs("offline", client.mountpoint)
        assert read(client.path("notes.txt")) == "one\n"
        with open(client.path("notes.txt"), "a") as file:
            file.write("two\n")
        os.mkdir(client.path("new"))
        write(client.path("new/file"), "made offline\n")
        client.server.restore()
        client.online()
        client.sync()
        assert read(f"{client.server.root}/notes.txt") == "one\ntwo\n"
        assert read(f"{client.server.root}/new/file") == "made offline\n"
        assert client.conflicts() == []


@pytest.mark.parametrize("kind", ["dir", "sftp"])
@pytest.mark.parametrize("keep", ["local", "server", "both"])
def test_conflict_is_found_and_resolved(kind: str, keep: str, tmp_path: object) -> None:
    with mounted(kind, str(tmp_path)) as client:
        write(f"{client.server.root}/plan.txt", "base\n")
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("plan.txt"), "local wins\n")
        write(f"{client.server.root}/plan.txt", "server was faster\n")
        client.online()
        client.sync(check=False)
        (conflict,) = client.conflicts()
        assert conflict["kind"] == "update/update"
        variants = client.path(".awayfs/conflicts/plan.txt")
        assert read(f"{variants}/base") == "base\n"
        assert read(f"{variants}/local") == "local wins\n"
        assert read(f"{variants}/server") == "server was faster\n"
        client.awayfs("resolve", client.path("plan.txt"), "--keep", keep)
        client.sync()
        _check_resolved(client, keep)


def _check_resolved(client: Client, keep: str) -> None:
    expected = "local wins\n" if keep == "local" else "server was faster\n"
    assert read(f"{client.server.root}/plan.txt") == expected
    assert read(client.path("plan.txt")) == expected
    assert client.conflicts() == []
    copies = [name for name in os.listdir(client.server.root) if "conflict" in name]
    assert len(copies) == (keep == "both")
    if copies:
        assert read(f"{client.server.root}/{copies[0]}") == "local wins\n"
    grain = client.server.time_grain_ns
    assert_same_tree(
        tree(client.mountpoint, mtime_grain_ns=grain, directories_mtime=False),
        tree(client.server.root, mtime_grain_ns=grain, directories_mtime=False),
    )


def test_cut_off_before_looking_around(tmp_path: object) -> None:
    """Whoever mounts and leaves at once can still begin to work."""
    with mounted("dir", str(tmp_path)) as client:
        eventually(lambda: client.status()["mode"] == "connected", "the first contact")
        client.offline()
        write(client.path("begun.txt"), "on the train\n")
        client.online()
        client.sync()
        assert read(f"{client.server.root}/begun.txt") == "on the train\n"


def test_a_change_that_cannot_be_sent_does_not_keep_sync_waiting(tmp_path: object) -> None:
    """Its content was destroyed in the state directory: said, and everything else goes on."""
    with mounted("dir", str(tmp_path)) as client:
        eventually(lambda: client.status()["mode"] == "connected", "the first contact")
        client.offline()
        write(client.path("broken.txt"), "x" * 1000)
        write(client.path("whole.txt"), "sent all the same\n")
        for directory, _, files in os.walk(client.state):
            for name in files:
                path = os.path.join(directory, name)
                if f"{os.sep}content{os.sep}" in path and os.path.getsize(path) == 1000:
                    os.unlink(path)
        client.online()
        client.sync(check=False)
        assert read(f"{client.server.root}/whole.txt") == "sent all the same\n"
        assert not os.path.exists(f"{client.server.root}/broken.txt")
        assert "cannot be sent" in client.awayfs("why", client.path("broken.txt"))
        assert client.status()["pending"]["records"] > 0


def test_noexec(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "noexec") as client:
        write(f"{client.server.root}/program", "#!/bin/sh\n")
        os.chmod(f"{client.server.root}/program", 0o755)
        with pytest.raises(PermissionError):
            subprocess.run([client.path("program")], check=False)
        client.umount()
        client.mount()
        assert subprocess.run([client.path("program")], check=False).returncode == 0
