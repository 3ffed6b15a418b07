"""How a daemon begins, and what it leaves when it does not come about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from awayfs.control import paths
from awayfs.daemon.main import _remove_unborn
from awayfs.store.store import Store

PROGRAM = """
import resource
from awayfs.daemon import main
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
main.receive = lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)) or exit()
main.main()
"""


def test_the_daemon_takes_as_many_descriptors_as_it_may_have() -> None:
    """All that programs have open in a mount is open in its daemon."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"True\n"


def test_what_another_daemon_began_is_not_tidied_up_after_a_mount_that_came_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = paths.ensure_volume("v")
    (Path(directory) / "daemon.log").write_text("said")
    Store.open(directory, create=True).close()
    other = Store.open(directory, create=True)
    before = sorted(os.listdir(directory))
    _remove_unborn("v")
    assert sorted(os.listdir(directory)) == before
    other.close()
    _remove_unborn("v")
    assert os.listdir(directory) == ["daemon.log"]
