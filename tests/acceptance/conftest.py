"""Mounts that many of these tests have in common; a file may have its own under the same name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, mounted


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A mount that looks at the server anew each time."""
    with mounted(request.param, str(tmp_path), "fresh=0") as mount:
        yield mount


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Client]:
    """The same where files have ids and extended attributes, or the server makes no difference."""
    with mounted("dir", str(tmp_path), "fresh=0") as mount:
        yield mount
