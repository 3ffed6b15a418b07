"""What attempts to lose data found: each a small story on a real mount that once ended badly."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.harness import Client, mounted, needs_fuse

pytestmark = needs_fuse


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def everything(root: str) -> list[str]:
    """The content of every file of a tree, sorted."""
    found = [Path(at, name) for at, _, names in os.walk(root) for name in names]
    return sorted(path.read_text() for path in found)


def resolve_all(client: Client, keep: str = "both") -> None:
    """Decide every conflict until there is none; one decision may settle another conflict."""
    for _ in range(5):
        client.sync(check=False)
        conflicts = client.conflicts()
        if not conflicts:
            return
        for conflict in conflicts:
            client.awayfs("resolve", client.path(conflict["path"]), "--keep", keep, check=False)
    raise AssertionError(f"never ends: {client.conflicts()}")


def test_a_conflicted_file_is_renamed_and_its_name_taken_before_it_is_resolved(
    tmp_path: Path,
) -> None:
    """The decision concerns the file in conflict, not the one that bears its name by now."""
    with mounted("dir", str(tmp_path)) as client:
        os.listdir(client.mountpoint)
        client.offline()
        write(client.path("f"), "first\n")
        write(f"{client.server.root}/f", "server's\n")
        client.online()
        client.sync(check=False)
        assert [c["kind"] for c in client.conflicts()] == ["name/name"]
        os.rename(client.path("f"), client.path("moved"))
        write(client.path("f"), "second\n")
        resolve_all(client)
        assert everything(client.server.root) == ["first\n", "second\n", "server's\n"]
        assert read(f"{client.server.root}/moved") == "first\n"
        assert read(f"{client.server.root}/f") == "server's\n"


def test_a_conflicted_file_is_removed_before_it_is_resolved(tmp_path: Path) -> None:
    """What was made and removed here is gone; the server's file of that name is not."""
    with mounted("dir", str(tmp_path)) as client:
        os.listdir(client.mountpoint)
        client.offline()
        write(client.path("f"), "first\n")
        write(f"{client.server.root}/f", "server's\n")
        client.online()
        client.sync(check=False)
        os.unlink(client.path("f"))
        resolve_all(client)
        assert everything(client.server.root) == ["server's\n"]
        assert read(client.path("f")) == "server's\n"


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_base_of_which_a_part_is_missing_is_not_shown_as_one(kind: str, tmp_path: Path) -> None:
    """Appending to a file that is not cached keeps no base; zeros are not one."""
    with mounted(kind, str(tmp_path)) as client:
        write(f"{client.server.root}/log", "one\n" * 2000)
        os.stat(client.path("log"))
        client.offline()
        append(client.path("log"), "here\n")
        write(f"{client.server.root}/log", "one\n" * 2000 + "there\n")
        client.online()
        client.sync(check=False)
        (conflict,) = client.conflicts()
        base = client.path(".awayfs/conflicts/log/base")
        assert not os.path.exists(base), "a base that nobody has"
        assert not (conflict["base"] or {}).get("available")


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_save_on_the_server_whose_temporary_file_was_seen(kind: str, tmp_path: Path) -> None:
    """A file known under one name is renamed over another known file: it has that name now."""
    with mounted(kind, str(tmp_path), "fresh=0") as client:
        server = client.server.root
        write(f"{server}/f", "old\n")
        write(f"{server}/f.tmp", "newer\n")
        assert sorted(os.listdir(client.mountpoint)) == ["f", "f.tmp"]
        assert read(client.path("f")) == "old\n"
        os.rename(f"{server}/f.tmp", f"{server}/f")
        assert os.listdir(client.mountpoint) == ["f"]
        assert read(client.path("f")) == "newer\n"
        write(f"{server}/f", "newest of all\n")
        os.listdir(client.mountpoint)
        assert read(client.path("f")) == "newest of all\n"
        append(client.path("f"), "and mine\n")
        client.sync()
        assert read(f"{server}/f") == "newest of all\nand mine\n"
        assert client.conflicts() == []


@pytest.mark.parametrize("links", [1, 2])
@pytest.mark.parametrize("replaced", ["a", "b"])
def test_one_name_of_a_hard_linked_file_is_saved_over_on_the_server(
    replaced: str, links: int, tmp_path: Path
) -> None:
    """That name holds another file from then on; the other name keeps what it had."""
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        server, other = client.server.root, "b" if replaced == "a" else "a"
        write(f"{server}/a", "one\n")
        os.link(f"{server}/a", f"{server}/b")
        if links == 2:
            os.link(f"{server}/a", f"{server}/c")
        assert [read(client.path(name)) for name in sorted(os.listdir(client.mountpoint))]
        write(f"{server}/new", "another\n")
        if links == 2:
            os.mkdir(f"{server}/unseen")
            os.link(f"{server}/new", f"{server}/unseen/new")
        os.rename(f"{server}/new", f"{server}/{replaced}")
        for _ in range(2):
            os.listdir(client.mountpoint)
            assert read(client.path(replaced)) == "another\n"
            assert read(client.path(other)) == "one\n"
        append(client.path(replaced), "mine\n")
        client.sync()
        assert read(f"{server}/{replaced}") == "another\nmine\n"
        assert read(f"{server}/{other}") == "one\n"


def test_a_directory_renamed_on_both_sides_keeps_the_work_in_it(tmp_path: Path) -> None:
    """Its old name is taken here by another: what was made and edited in it is not dropped."""
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        server = client.server.root
        os.mkdir(f"{server}/d")
        write(f"{server}/d/file", "base\n")
        os.listdir(client.mountpoint)
        os.listdir(client.path("d"))
        read(client.path("d/file"))
        client.offline()
        os.rename(client.path("d"), client.path("mine"))
        append(client.path("mine/file"), "edited\n")
        write(client.path("mine/inside"), "inside\n")
        os.mkdir(client.path("d"))
        write(client.path("d/other"), "other\n")
        os.rename(f"{server}/d", f"{server}/theirs")
        client.online()
        resolve_all(client)
        contents = everything(server)
        assert "base\nedited\n" in contents and "inside\n" in contents and "other\n" in contents


def test_a_conflicted_file_that_is_an_error_is_not_truncated_by_name(tmp_path: Path) -> None:
    """``conflicted=error`` protects the local variant from truncate(2) as from open(2)."""
    with mounted("dir", str(tmp_path), "fresh=0,conflicted=error") as client:
        server = client.server.root
        write(f"{server}/f", "base\n")
        read(client.path("f"))
        client.offline()
        append(client.path("f"), "mine\n")
        write(f"{server}/f", "theirs!\n")
        client.online()
        client.sync(check=False)
        for change in (lambda path: os.truncate(path, 0), read):
            with pytest.raises(OSError) as caught:
                change(client.path("f"))
            assert caught.value.errno == errno.EBUSY
        write(client.path("new"), "over\n")
        os.rename(client.path("new"), client.path("f"))
        resolve_all(client)
        contents = everything(server)
        assert "base\nmine\n" in contents and "over\n" in contents and "theirs!\n" in contents


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_an_append_to_what_was_never_here_and_is_gone_is_saved_as_a_part(
    kind: str, tmp_path: Path
) -> None:
    """The gap says why it cannot be read, and the decision keeps both sides' work."""
    with mounted(kind, str(tmp_path), "fresh=0") as client:
        server = client.server.root
        write(f"{server}/log.txt", "one\n" * 2000)
        os.stat(client.path("log.txt"))
        client.offline()
        append(client.path("log.txt"), "here\n")
        write(f"{server}/log.txt", "one\n" * 2000 + "there\n")
        client.online()
        client.sync(check=False)
        with pytest.raises(OSError) as caught:
            read(client.path("log.txt"))
        assert caught.value.errno == errno.EBUSY
        assert "never here" in client.awayfs("why", client.path("log.txt"))
        assert "\n" not in client.fails("resolve", client.path("log.txt"), "--keep", "local")
        client.awayfs("resolve", client.path("log.txt"), "--keep", "both")
        client.sync()
        assert client.conflicts() == []
        part, note, whole = sorted(os.listdir(server))
        assert part.startswith("log (partial conflict ") and note == f"{part}.known-ranges.txt"
        assert whole == "log.txt" and read(f"{server}/{whole}").endswith("there\n")
        assert Path(server, part).read_bytes() == b"\0" * 8000 + b"here\n"
