"""How the state of a client is made in less time than that takes."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from awayfs.core.types import NodeId
from awayfs.store.db import Database
from awayfs.store.files import FOLDERS, Files


class OneFan(Files):
    """All content in one folder: making, copying and removing 512 of them takes longer than
    what is tested.
    """

    def path(self, folder: str, node: NodeId, version: int) -> str:
        above, _, name = super().path(folder, 0, version).rpartition("/")
        return f"{above}/{name.replace('0', str(node), 1)}"


def make_folders(directory: str) -> None:
    """As ``store.files.make_folders``, for ``OneFan``."""
    for folder in (*FOLDERS, "content/00", "base/00"):
        os.makedirs(f"{directory}/{folder}", 0o700, exist_ok=True)


@cache
def new_database() -> bytes:
    """A database as a first mount makes it: to make each anew is a tenth of a sequence's time."""
    with TemporaryDirectory(prefix="awayfs-m-") as folder:
        Database.open(f"{folder}/volume.db").close()
        return Path(folder, "volume.db").read_bytes()
