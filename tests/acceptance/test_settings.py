"""Settings for directories, on real mounts: what counts, where it comes from, and bad files."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

from tests.acceptance.test_merge_rules import configure, configured
from tests.harness import Client, eventually, needs_fuse, run

pytestmark = needs_fuse

CONFIG = """
fresh = 20
[[directory]]
path = "/media"
never-cache = true
[[merge]]
pattern = "*.txt"
strategy = "text"
"""


def config_of(client: Client, path: str) -> dict[str, tuple[str, str]]:
    reply = json.loads(client.awayfs("config", client.path(path), "--json"))
    return {one["name"]: (one["text"], one["place"]) for one in reply["settings"]}


def test_where_each_value_comes_from(tmp_path: Path) -> None:
    with configured("dir", tmp_path, CONFIG) as client:  # with -o fresh=0
        share = Path(client.server.root)
        for name in ("media", "project/sub"):
            (share / name).mkdir(parents=True)
            (share / name / "f.txt").write_text("x")
        (share / "project/.awayfs.toml").write_text("pin = 7\nleave-out = ['*.o']\n")
        os.listdir(client.path("project"))
        found = config_of(client, "media/f.txt")
        assert found["never-cache"] == ("on", "directory") and found["fresh"] == ("0", "option")
        assert found["cull"] == ("on", "default")
        found = config_of(client, "project/sub/f.txt")
        assert found["pin"] == ("7", "share") and found["never-cache"] == ("off", "default")
        said = client.awayfs("config", client.path("project/sub/f.txt"))
        assert "project/.awayfs.toml" in said and "*.o" in said and "text (*.txt)" in said
        assert client.awayfs("config", client.path("project/sub/x.o"), check=False) == ""
        path = client.path("project/sub/f.txt")
        assert os.getxattr(path, "user.awayfs.pin") == b"inherited"
        os.setxattr(client.path("project/sub"), "user.awayfs.fresh", b"60")
        os.setxattr(path, "user.awayfs.cull", b"off")
        found = config_of(client, "project/sub/f.txt")
        assert found["fresh"] == ("60", "xattr") and found["cull"] == ("off", "xattr")
        os.rename(client.path("project/sub"), client.path("moved"))
        assert config_of(client, "moved/f.txt")["fresh"] == ("60", "xattr")
        assert config_of(client, "moved/f.txt")["pin"] == ("none", "default")
        client.sync()
        client.umount()
        client.mount()
        assert config_of(client, "moved/f.txt")["fresh"] == ("60", "xattr")
        os.removexattr(client.path("moved"), "user.awayfs.fresh")
        assert config_of(client, "moved/f.txt")["fresh"] == ("20", "top")


def test_a_value_that_cannot_be(tmp_path: Path) -> None:
    with configured("dir", tmp_path, "") as client:
        Path(client.path("f")).write_text("x")
        for name, value in (("fresh", b"-1"), ("cull", b"perhaps"), ("never-cache", b"2")):
            with pytest.raises(OSError) as refused:
                os.setxattr(client.path("f"), f"user.awayfs.{name}", value)
            assert refused.value.errno == errno.EINVAL
        os.setxattr(client.path("f"), "user.awayfs.cull", b"off")
        with pytest.raises(OSError) as refused:
            os.setxattr(client.path("f"), "user.awayfs.never-cache", b"on")
        assert refused.value.errno == errno.EINVAL
        with pytest.raises(OSError) as missing:
            os.removexattr(client.path("f"), "user.awayfs.fresh")
        assert missing.value.errno == errno.ENODATA


def test_a_broken_file_on_the_share_is_said_once(tmp_path: Path) -> None:
    with configured("dir", tmp_path, "") as client:
        share = Path(client.server.root)
        (share / "d").mkdir()
        (share / "d/.awayfs.toml").write_text("pin = \n")
        (share / "d/f").write_text("x")
        os.listdir(client.path("d"))
        assert config_of(client, "d/f")["pin"] == ("none", "default")
        line = "d/.awayfs.toml: "
        eventually(lambda: line in client.log, "a warning")
        for _ in range(3):
            config_of(client, "d/f")
        assert client.log.count(f"WARNING awayfs.volume.share_rules: {line}") == 1
        (share / "d/.awayfs.toml").write_text("pin = 3\ncache-size = '1'\n")
        os.listdir(client.path("d"))
        eventually(lambda: config_of(client, "d/f")["pin"] == ("3", "share"), "the new version")
        reply = json.loads(client.awayfs("config", client.path("d/f"), "--json"))
        assert len(reply["complaints"]) == 1 and "your own configuration" in reply["complaints"][0]
        os.unlink(client.path("d/.awayfs.toml"))
        eventually(lambda: config_of(client, "d/f")["pin"] == ("none", "default"), "its end")


def test_marks_that_only_together_are_out_of_order(tmp_path: Path) -> None:
    with configured("dir", tmp_path, "brun = 4\n") as client:
        said = json.loads(client.awayfs("config", client.mountpoint, "--json"))["complaints"]
        assert len(said) == 1 and "bcull=5" in said[0] and "defaults" in said[0]
        configure(client, "brun = 40\n")
        time.sleep(1.1)
        assert config_of(client, "")["brun"] == ("40", "top")


def test_freshness_by_directory(tmp_path: Path) -> None:
    """One directory is believed for long, another one is asked about each time."""
    text = '[[directory]]\npath = "/old"\nfresh = 600\n'
    with configured("dir", tmp_path, text) as client:
        share = Path(client.server.root)
        for name in ("old", "new"):
            (share / name).mkdir()
            (share / name / "f").write_text("1")
            run("cat", client.path(f"{name}/f"))
            (share / name / "f").write_text("22")
        assert run("cat", client.path("new/f")) == "22"
        assert run("cat", client.path("old/f")) == "1"
