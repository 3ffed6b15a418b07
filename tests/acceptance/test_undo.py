"""Taking decisions back, with what they did beside contents: names, attributes, links, removals."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.acceptance.test_merge_rules import configured
from tests.harness import Client, assert_same_tree, needs_fuse, tree

pytestmark = needs_fuse


def here(client: Client, name: str) -> Path:
    return Path(client.path(name))


def kinds(client: Client) -> dict[str, str]:
    client.online()
    client.sync(check=False)
    return {c["path"]: c["kind"] for c in client.conflicts()}


def decide(client: Client, name: str, keep: str) -> str:
    said = client.awayfs("resolve", client.path(name), "--keep", keep)
    client.sync()
    return said


def undo(client: Client, name: str, *flags: str) -> None:
    client.awayfs("resolve", "--undo", *flags, client.path(name))
    client.sync()
    assert client.conflicts() == []
    assert_same_tree(
        tree(client.mountpoint, mtime_grain_ns=10**9, directories_mtime=False),
        tree(client.server.root, mtime_grain_ns=10**9, directories_mtime=False),
    )


def test_a_rename_that_was_decided_against(plain: Client) -> None:
    plain.on_server("f").write_text("content\n")
    here(plain, "f").read_text()
    plain.offline()
    os.rename(plain.path("f"), plain.path("ours"))
    os.rename(plain.on_server("f"), plain.on_server("theirs"))
    assert kinds(plain) == {"ours": "rename/rename"}
    decide(plain, "ours", "server")
    assert sorted(os.listdir(plain.mountpoint)) == ["theirs"]
    undo(plain, "ours")
    assert sorted(os.listdir(plain.server.root)) == ["ours"]
    undo(plain, "ours")  # an undo can be undone
    assert sorted(os.listdir(plain.server.root)) == ["theirs"]


def test_the_servers_name_that_was_decided_against(plain: Client) -> None:
    plain.on_server("f").write_text("content\n")
    here(plain, "f").read_text()
    plain.offline()
    os.rename(plain.path("f"), plain.path("ours"))
    os.rename(plain.on_server("f"), plain.on_server("theirs"))
    assert kinds(plain) == {"ours": "rename/rename"}
    decide(plain, "ours", "local")
    undo(plain, "ours")
    assert sorted(os.listdir(plain.server.root)) == ["theirs"]


def test_a_name_that_is_taken_by_now(plain: Client) -> None:
    """Refused before anything is changed."""
    plain.on_server("f").write_text("content\n")
    here(plain, "f").read_text()
    plain.offline()
    os.rename(plain.path("f"), plain.path("ours"))
    os.rename(plain.on_server("f"), plain.on_server("theirs"))
    kinds(plain)
    decide(plain, "ours", "server")
    here(plain, "ours").write_text("another\n")
    said = plain.fails("resolve", "--undo", plain.path("theirs"))
    assert "its name ours is taken by now" in said
    assert sorted(os.listdir(plain.mountpoint)) == ["ours", "theirs"]


@pytest.mark.parametrize(
    ("keep", "decided", "back"), [("server", 0o604, 0o640), ("local", 0o640, 0o604)]
)
def test_a_mode(keep: str, decided: int, back: int, client: Client) -> None:
    client.on_server("f").write_text("content\n")
    os.chmod(client.on_server("f"), 0o644)
    here(client, "f").read_text()
    client.offline()
    os.chmod(client.path("f"), 0o640)
    os.chmod(client.on_server("f"), 0o604)
    assert kinds(client) == {"f": "attribute"}
    decide(client, "f", keep)
    assert stat.S_IMODE(os.stat(client.on_server("f")).st_mode) == decided
    undo(client, "f")
    assert stat.S_IMODE(os.stat(client.on_server("f")).st_mode) == back
    os.chmod(client.path("f"), 0o600)
    assert "its mode was changed since" in client.fails("resolve", "--undo", client.path("f"))
    undo(client, "f", "--force")
    assert stat.S_IMODE(os.stat(client.on_server("f")).st_mode) == decided


def test_an_extended_attribute(plain: Client) -> None:
    plain.on_server("f").write_text("content\n")
    os.setxattr(plain.on_server("f"), "user.mine", b"base")
    assert os.getxattr(plain.path("f"), "user.mine") == b"base"
    plain.offline()
    os.setxattr(plain.path("f"), "user.mine", b"ours")
    os.setxattr(plain.on_server("f"), "user.mine", b"theirs")
    assert kinds(plain) == {"f": "attribute"}
    decide(plain, "f", "server")
    assert os.getxattr(plain.path("f"), "user.mine") == b"theirs"
    undo(plain, "f")
    assert os.getxattr(plain.on_server("f"), "user.mine") == b"ours"


def test_what_attributes_were_before_both_changes(client: Client) -> None:
    client.on_server("f").write_text("content\n")
    os.chmod(client.on_server("f"), 0o644)
    here(client, "f").read_text()
    client.offline()
    os.chmod(client.path("f"), 0o640)
    os.chmod(client.on_server("f"), 0o604)
    assert kinds(client) == {"f": "attribute"}
    decide(client, "f", "base")
    assert stat.S_IMODE(os.stat(client.on_server("f")).st_mode) == 0o644
    assert stat.S_IMODE(os.stat(client.path("f")).st_mode) == 0o644
    undo(client, "f", "--keep", "server")
    assert stat.S_IMODE(os.stat(client.on_server("f")).st_mode) == 0o604


def test_what_an_extended_attribute_was_before_both_changes(plain: Client) -> None:
    plain.on_server("f").write_text("content\n")
    os.setxattr(plain.on_server("f"), "user.mine", b"base")
    assert os.getxattr(plain.path("f"), "user.mine") == b"base"
    plain.offline()
    os.setxattr(plain.path("f"), "user.mine", b"ours")
    os.setxattr(plain.on_server("f"), "user.mine", b"theirs")
    assert kinds(plain) == {"f": "attribute"}
    decide(plain, "f", "base")
    assert os.getxattr(plain.on_server("f"), "user.mine") == b"base"
    assert os.getxattr(plain.path("f"), "user.mine") == b"base"


def test_content_comes_with_its_mode_and_time(client: Client) -> None:
    client.on_server("f").write_text("base\n")
    os.chmod(client.on_server("f"), 0o644)
    here(client, "f").read_text()
    client.offline()
    here(client, "f").write_text("ours, longer\n")
    os.chmod(client.path("f"), 0o600)
    os.utime(client.path("f"), (10**9, 10**9))
    client.on_server("f").unlink()
    assert kinds(client) == {"f": "update/remove"}
    decide(client, "f", "server")
    assert not here(client, "f").exists()
    undo(client, "f")
    back = os.stat(client.on_server("f"))
    assert client.on_server("f").read_text() == "ours, longer\n"
    assert (stat.S_IMODE(back.st_mode), int(back.st_mtime)) == (0o600, 10**9)
    undo(client, "f")  # an undo that made something takes it away
    assert not client.on_server("f").exists()
    undo(client, "f")
    assert client.on_server("f").read_text() == "ours, longer\n"


def test_a_symlinks_target(client: Client) -> None:
    os.symlink("base", client.on_server("link"))
    os.readlink(client.path("link"))
    client.offline()
    os.unlink(client.path("link"))
    os.symlink("ours", client.path("link"))
    os.unlink(client.on_server("link"))
    os.symlink("theirs, longer", client.on_server("link"))
    assert set(kinds(client)) == {"link"}
    decide(client, "link", "server")
    assert os.readlink(client.path("link")) == "theirs, longer"
    undo(client, "link")
    assert os.readlink(client.on_server("link")) == "ours"
    undo(client, "link")
    assert os.readlink(client.on_server("link")) == "theirs, longer"


def test_a_conflict_copy_goes_again(client: Client) -> None:
    client.on_server("f").write_text("base\n")
    here(client, "f").read_text()
    client.offline()
    here(client, "f").write_text("ours\n")
    client.on_server("f").write_text("theirs, longer\n")
    assert kinds(client) == {"f": "update/update"}
    decide(client, "f", "both")
    assert len(os.listdir(client.server.root)) == 2
    undo(client, "f")
    assert os.listdir(client.server.root) == ["f"]
    assert client.on_server("f").read_text() == "ours\n"
    undo(client, "f")
    assert client.on_server("f").read_text() == "theirs, longer\n"


@pytest.mark.parametrize("worked_on", [False, True])
def test_a_conflict_copy_of_a_symlink_goes_again(worked_on: bool, client: Client) -> None:
    client.offline()
    os.symlink("ours", client.path("link"))
    os.symlink("theirs, longer", client.on_server("link"))
    assert kinds(client) == {"link": "name/name"}
    decide(client, "link", "both")
    assert os.readlink(client.path("link")) == "theirs, longer"
    (copy,) = [name for name in os.listdir(client.mountpoint) if name != "link"]
    if worked_on:
        os.unlink(client.path(copy))
        os.symlink("elsewhere", client.path(copy))
        client.sync()
    undo(client, "link")
    assert os.readlink(client.on_server("link")) == "ours"
    assert sorted(os.listdir(client.server.root)) == sorted(["link", *[copy] * worked_on])
    undo(client, "link")
    assert os.readlink(client.on_server("link")) == "theirs, longer"


def test_a_conflict_copy_that_was_worked_on_stays(plain: Client) -> None:
    plain.on_server("f").write_text("base\n")
    here(plain, "f").read_text()
    plain.offline()
    here(plain, "f").write_text("ours\n")
    plain.on_server("f").write_text("theirs, longer\n")
    kinds(plain)
    decide(plain, "f", "both")
    (copy,) = [name for name in os.listdir(plain.mountpoint) if name != "f"]
    here(plain, copy).write_text("worked on\n")
    undo(plain, "f")
    assert plain.on_server("f").read_text() == "ours\n"
    assert plain.on_server(copy).read_text() == "worked on\n"


def test_a_removal_that_was_decided_against(client: Client) -> None:
    client.on_server("f").write_text("base\n")
    here(client, "f").read_text()
    client.offline()
    here(client, "f").unlink()
    client.on_server("f").write_text("theirs, longer\n")
    assert kinds(client) == {"f": "remove/update"}
    decide(client, "f", "server")
    assert here(client, "f").read_text() == "theirs, longer\n"
    undo(client, "f")
    assert os.listdir(client.server.root) == []
    undo(client, "f")
    assert client.on_server("f").read_text() == "theirs, longer\n"


def test_a_directory_with_what_was_made_in_it(client: Client) -> None:
    assert os.listdir(client.mountpoint) == []
    client.offline()
    here(client, "d/new").mkdir(parents=True)
    os.chmod(client.path("d/new"), 0o750)
    here(client, "d/new/file").write_text("made here\n")
    os.symlink("nowhere", client.path("d/new/link"))
    client.on_server("d").write_text("a file\n")
    assert kinds(client) == {"d": "type"}
    decide(client, "d", "server")
    assert here(client, "d").read_text() == "a file\n"
    assert "move that away first" in client.fails("resolve", "--undo", client.path("d"))
    os.rename(client.path("d"), client.path("theirs"))
    undo(client, "d")
    assert client.on_server("d/new/file").read_text() == "made here\n"
    assert os.readlink(client.on_server("d/new/link")) == "nowhere"
    assert stat.S_IMODE(os.stat(client.on_server("d/new")).st_mode) == 0o750


def test_what_the_history_cannot_take_is_said_before(tmp_path: Path) -> None:
    """Where nothing can be shared with a copy, and a version is larger than the history takes."""
    with configured("dir", tmp_path, '[history]\nlargest = "4K"\n') as plain:
        plain.on_server("f").write_text("base\n")
        here(plain, "f").read_text()
        plain.offline()
        here(plain, "f").write_text("ours\n" * 1000)
        plain.on_server("f").write_text("theirs\n" * 1000)
        assert kinds(plain) == {"f": "update/update"}
        path = plain.path("f")
        would = plain.awayfs("resolve", path, "--keep", "server", "--dry-run")
        assert "could not be taken back" in would
        said = plain.fails("resolve", path, "--keep", "server")
        assert "too large for the history" in said and "--force" in said
        assert plain.conflicts() and here(plain, "f").read_text() == "ours\n" * 1000
        plain.awayfs("resolve", path, "--keep", "server", "--force")
        assert here(plain, "f").read_text() == "theirs\n" * 1000
        listed = json.loads(plain.awayfs("resolve", "--history", "--json"))["history"]
        assert not any(item["content"] for item in listed)
