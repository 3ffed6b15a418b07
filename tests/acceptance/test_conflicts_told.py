"""What ``awayfs conflicts`` and ``--dry-run`` tell of a conflict, on real mounts."""

from __future__ import annotations

import os
from pathlib import Path

from tests.harness import Client, eventually, needs_fuse

pytestmark = needs_fuse


def test_a_file_and_a_directory_that_were_renamed_on_both_sides(plain: Client) -> None:
    """Both names are told, and what has the server's can be read."""
    plain.on_server("d").mkdir()
    for name in ("f", "d/inside"):
        plain.on_server(name).write_text(name)
        assert Path(plain.path(name)).read_text() == name
    plain.offline()
    for name in ("f", "d"):
        os.rename(plain.path(name), plain.path(f"{name}-here"))
        plain.on_server(name).rename(plain.on_server(f"{name}-there"))
    plain.online()
    plain.sync(check=False)
    told = plain.awayfs("conflicts")
    shown = Path(plain.path(".awayfs/conflicts"))
    for name in ("f", "d"):
        assert f"/{name}-here  rename/rename" in told
        assert f"named {name}-there on the server, {shown}/{name}-here/server" in told
    assert (shown / "f-here/server").read_text() == "f"
    assert os.readlink(shown / "d-here/server") == "../../server/d-there"
    assert (shown / "d-here/server/inside").read_text() == "d/inside"


def test_a_mode_that_was_set_on_both_sides(plain: Client) -> None:
    plain.on_server("f").write_text("content")
    plain.on_server("f").chmod(0o644)
    assert Path(plain.path("f")).read_text() == "content"
    plain.offline()
    os.chmod(plain.path("f"), 0o600)
    plain.on_server("f").chmod(0o640)
    plain.online()
    plain.sync(check=False)
    eventually(plain.conflicts, "the conflict is found")
    base, local, server = plain.awayfs("conflicts").splitlines()[2:]
    assert "mode 644" in base and "mode 600" in local and "mode 640" in server


def test_a_decision_that_cannot_be(plain: Client) -> None:
    """A dry run says so, and does not promise what the command would refuse."""
    assert os.listdir(plain.mountpoint) == []
    plain.offline()
    Path(plain.path("f")).write_text("ours")
    plain.on_server("f").write_text("theirs")
    plain.online()
    plain.sync(check=False)
    way = ("resolve", plain.path("f"), "--keep", "base")
    said = "there is no version from before both changes"
    assert f"name/name: nothing: {said}" in plain.awayfs(*way, "--dry-run")
    assert said in plain.fails(*way)
    assert len(plain.conflicts()) == 1
