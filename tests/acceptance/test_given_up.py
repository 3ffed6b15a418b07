"""What goes with a directory that is given up or discarded, and what does not."""

from __future__ import annotations

import os

from tests.acceptance.test_undo import client, here, kinds, plain, there
from tests.harness import Client, needs_fuse

pytestmark = needs_fuse
__all__ = ["client", "plain"]


def test_one_more_name_of_a_file_elsewhere(plain: Client) -> None:
    """The file stays under its other name, with what was written and its own conflict."""
    there(plain, "a").write_text("known\n")
    here(plain, "a").read_text()
    plain.offline()
    here(plain, "a").write_text("unsent\n")
    os.mkdir(plain.path("d"))
    os.link(plain.path("a"), plain.path("d/b"))
    there(plain, "d").write_text("theirs\n")
    there(plain, "a").write_text("theirs, too\n")
    assert kinds(plain) == {"a": "update/update", "d": "type"}
    plain.awayfs("resolve", plain.path("d"), "--keep", "server")
    assert here(plain, "a").read_text() == "unsent\n"
    assert [c["path"] for c in plain.conflicts()] == ["a"]
    plain.awayfs("resolve", plain.path("a"), "--keep", "local")
    plain.sync()
    assert there(plain, "a").read_text() == "unsent\n"
    assert there(plain, "d").read_text() == "theirs\n"


def test_a_file_made_inside_that_got_a_name_elsewhere(plain: Client) -> None:
    """Nothing is decided before it is clear which name is meant; then the other one is sent."""
    plain.offline()
    os.mkdir(plain.path("d"))
    here(plain, "d/b").write_text("unsent\n")
    os.link(plain.path("d/b"), plain.path("a"))
    there(plain, "d").write_text("theirs\n")
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
    assert there(plain, "a").read_text() == "unsent\n"
