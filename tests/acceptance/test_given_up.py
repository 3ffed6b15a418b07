"""What goes with a directory that is given up or discarded, and what does not."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_merge_rules import configured
from tests.acceptance.test_undo import here, kinds
from tests.harness import Client, eventually, needs_fuse

pytestmark = needs_fuse


def test_one_more_name_of_a_file_elsewhere(plain: Client) -> None:
    """The file stays under its other name, with what was written and its own conflict."""
    plain.on_server("a").write_text("known\n")
    here(plain, "a").read_text()
    plain.offline()
    here(plain, "a").write_text("unsent\n")
    os.mkdir(plain.path("d"))
    os.link(plain.path("a"), plain.path("d/b"))
    plain.on_server("d").write_text("theirs\n")
    plain.on_server("a").write_text("theirs, too\n")
    assert kinds(plain) == {"a": "update/update", "d": "type"}
    plain.awayfs("resolve", plain.path("d"), "--keep", "server")
    assert here(plain, "a").read_text() == "unsent\n"
    assert [c["path"] for c in plain.conflicts()] == ["a"]
    plain.awayfs("resolve", plain.path("a"), "--keep", "local")
    plain.sync()
    assert plain.on_server("a").read_text() == "unsent\n"
    assert plain.on_server("d").read_text() == "theirs\n"


def test_a_file_made_inside_that_got_a_name_elsewhere(plain: Client) -> None:
    """Nothing is decided before it is clear which name is meant; then the other one is sent."""
    plain.offline()
    os.mkdir(plain.path("d"))
    here(plain, "d/b").write_text("unsent\n")
    os.link(plain.path("d/b"), plain.path("a"))
    plain.on_server("d").write_text("theirs\n")
    assert kinds(plain) == {"d": "type"}
    said = plain.fails("resolve", plain.path("d"), "--keep", "server")
    assert "a is one more name of d/b" in said
    assert here(plain, "d/b").read_text() == "unsent\n"
    os.unlink(plain.path("d/b"))
    plain.awayfs("resolve", plain.path("d"), "--keep", "server")
    plain.sync(check=False)
    assert here(plain, "a").read_text() == "unsent\n"
    assert [c["path"] for c in plain.conflicts()] == ["a"]
    plain.awayfs("resolve", plain.path("a"), "--keep", "local")
    plain.sync()
    assert plain.on_server("a").read_text() == "unsent\n"


def test_a_part_of_a_file_is_no_file(client: Client) -> None:
    """What was moved into the directory, and was never here, is not made of holes by an undo."""
    client.on_server("x").write_bytes(b"x" * 5000)
    os.stat(client.path("x"))
    client.offline()
    os.mkdir(client.path("d"))
    here(client, "d/own").write_text("own\n")
    os.rename(client.path("x"), client.path("d/x"))
    client.on_server("d").write_text("theirs\n")
    assert kinds(client) == {"d": "type"}
    client.awayfs("resolve", client.path("d"), "--keep", "server")
    client.sync()
    os.unlink(client.path("d"))
    client.awayfs("resolve", "--undo", client.path("d"))
    client.sync()
    assert os.listdir(client.on_server("d")) == ["own"]
    assert client.on_server("x").read_bytes() == b"x" * 5000
    said = client.fails("resolve", "--undo", client.path("d/x"))
    assert "only a part of that version was ever here" in said


def test_a_file_inside_that_is_mapped(plain: Client) -> None:
    """What was written to its pages is part of what goes to the history."""
    plain.offline()
    os.mkdir(plain.path("d"))
    here(plain, "d/f").write_bytes(b"a" * 8192)
    plain.on_server("d").write_text("theirs\n")
    with mapped(plain, "d/f") as pages:
        assert kinds(plain) == {"d": "type"}
        pages[:4] = b"late"
        plain.awayfs("resolve", plain.path("d"), "--keep", "server")
    os.unlink(plain.path("d"))
    plain.awayfs("resolve", "--undo", plain.path("d"))
    assert here(plain, "d/f").read_bytes() == b"late" + b"a" * 8188


@pytest.mark.parametrize("keep", ["server", "both"])
def test_a_mapped_file(keep: str, client: Client) -> None:
    """Its pages are not written over what was decided for."""
    client.on_server("f").write_bytes(b"b" * 10000)
    here(client, "f").read_bytes()
    client.offline()
    with open(client.path("f"), "r+b") as file:
        file.write(b"OURS")
    client.on_server("f").write_bytes(b"t" * 12000)
    assert kinds(client) == {"f": "update/update"}
    with mapped(client, "f") as pages:
        pages[4:10] = b"MAPPED"
        client.awayfs("resolve", client.path("f"), "--keep", keep)
        client.sync()
    client.sync()
    assert client.on_server("f").read_bytes() == b"t" * 12000
    ours = b"OURSMAPPED" + b"b" * 9990
    if keep == "both":
        (copy,) = set(os.listdir(client.server.root)) - {"f"}
        assert client.on_server(copy).read_bytes() == ours
    client.awayfs("resolve", "--undo", client.path("f"))
    assert here(client, "f").read_bytes() == ours


def test_a_mapped_file_that_is_saved_elsewhere(client: Client) -> None:
    """What was written to its pages meets the newer version as any other edit."""
    client.on_server("f").write_bytes(b"b" * 10000)
    here(client, "f").read_bytes()
    with mapped(client, "f") as pages:
        pages[:6] = b"MAPPED"
        client.on_server("f").write_bytes(b"t" * 12000)
        os.stat(client.path("f"))
        eventually(lambda: client.conflicts(), "the conflict")
    client.sync(check=False)
    assert client.on_server("f").read_bytes() == b"t" * 12000
    assert here(client, "f").read_bytes() == b"MAPPED" + b"b" * 9994


def test_a_mapped_file_that_nobody_wrote_to(client: Client) -> None:
    client.on_server("f").write_bytes(b"b" * 10000)
    here(client, "f").read_bytes()
    with mapped(client, "f") as pages:
        assert pages[:1] == b"b"
        client.on_server("f").write_bytes(b"t" * 12000)
        os.stat(client.path("f"))
        eventually(lambda: pages[:1] == b"t", "the newer version")
        assert here(client, "f").read_bytes() == b"t" * 12000
    assert client.conflicts() == []


@contextlib.contextmanager
def mapped(client: Client, name: str) -> Iterator[mmap.mmap]:
    """All of a file, to be read and written."""
    with open(client.path(name), "r+b") as file:
        pages = mmap.mmap(file.fileno(), 0)
    with contextlib.closing(pages):
        yield pages


def test_a_discard_takes_no_other_name_along(plain: Client) -> None:
    plain.offline()
    here(plain, "a").write_text("unsent\n")
    os.mkdir(plain.path("d"))
    os.link(plain.path("a"), plain.path("d/b"))
    said = plain.fails("discard", plain.path("d"))
    assert "a: would have to be discarded as well" in said
    assert here(plain, "a").read_text() == "unsent\n"
    plain.awayfs("discard", plain.path("d"), plain.path("a"))
    assert os.listdir(plain.mountpoint) == []


def test_a_version_that_would_be_culled_at_once(tmp_path: Path) -> None:
    """Whatever the history takes of one version: all of a decision has to fit."""
    with configured("dir", tmp_path, '[history]\ntotal = "8K"\n') as plain:
        plain.on_server("f").write_text("base\n")
        here(plain, "f").read_text()
        plain.offline()
        here(plain, "f").write_text("ours\n" * 2000)
        plain.on_server("f").write_text("theirs\n" * 2000)
        assert kinds(plain) == {"f": "update/update"}
        for keep, which in (("server", "local"), ("local", "server")):
            resolve = ("resolve", plain.path("f"), "--keep", keep)
            assert f"the {which} version is too large" in plain.awayfs(*resolve, "--dry-run")
            assert f"the {which} version is too large" in plain.fails(*resolve)
        assert plain.conflicts() and here(plain, "f").read_text() == "ours\n" * 2000
        plain.awayfs("resolve", plain.path("f"), "--keep", "both")
        plain.sync()
        assert len(os.listdir(plain.server.root)) == 2
