"""A file that was removed here and changed on the server, with its variants, on real mounts."""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance.test_resolve import BASE, THEIRS, in_step, use_tool
from tests.harness import Client, needs_fuse

pytestmark = needs_fuse


def in_conflict(client: Client, *, read: bool = True) -> None:
    client.on_server("f").write_text(BASE)
    os.stat(client.path("f"))
    if read:
        assert Path(client.path("f")).read_text() == BASE
    client.offline()
    os.unlink(client.path("f"))
    client.on_server("f").write_text(THEIRS)
    client.online()
    assert "1 conflict to decide" in client.awayfs("sync", client.mountpoint, "--wait")
    (found,) = client.conflicts()
    assert found["kind"] == "remove/update" and found["local"] is None


def test_the_base_is_what_was_removed(client: Client) -> None:
    in_conflict(client)
    shown = Path(client.path(".awayfs/conflicts/f"))
    assert sorted(os.listdir(shown)) == ["base", "server"]
    assert (shown / "base").read_text() == BASE and (shown / "server").read_text() == THEIRS
    client.awayfs("resolve", client.path("f"), "--keep", "base")
    in_step(client, "f", BASE)
    client.awayfs("resolve", "--undo", client.path("f"), "--keep", "server")
    in_step(client, "f", THEIRS)


def test_a_base_that_was_never_here(client: Client) -> None:
    in_conflict(client, read=False)
    assert os.listdir(client.path(".awayfs/conflicts/f")) == ["server"]
    assert "base    not here" in client.awayfs("conflicts")
    assert "is not here any more" in client.fails("resolve", client.path("f"), "--keep", "base")
    assert len(client.conflicts()) == 1


def test_a_tool_begins_with_what_the_server_has(client: Client, tmp_path: Path) -> None:
    in_conflict(client)
    script = tmp_path / "tool"
    script.write_text(
        f'#!/bin/sh\ncp "$BASE" {tmp_path}/base; cp "$LOCAL" {tmp_path}/local\n'
        f'cp "$MERGED" {tmp_path}/first; echo done > "$MERGED"\n'
    )
    script.chmod(0o755)
    use_tool(client, tmp_path, str(script))
    client.awayfs("resolve", client.path("f"), "--tool", "t")
    found = {name: (tmp_path / name).read_text() for name in ("base", "local", "first")}
    assert found == {"base": BASE, "local": "", "first": THEIRS}
    in_step(client, "f", "done\n")
