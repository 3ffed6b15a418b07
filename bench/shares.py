"""What is measured upon: trees of files, and the same share through another file system."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from tests.harness import SftpServer


def make_tree(root: str, count: int, size: int) -> list[str]:
    """``count`` files in directories of 100; their paths relative to ``root``."""
    data = os.urandom(size)
    paths: list[str] = []
    for number in range(count):
        directory = f"d{number // 100:04}"
        if number % 100 == 0:
            os.makedirs(f"{root}/{directory}", exist_ok=True)
        path = f"{directory}/f{number % 100:02}"
        with open(f"{root}/{path}", "wb") as file:
            file.write(data)
        paths.append(path)
    return paths


@contextlib.contextmanager
def sshfs(server: SftpServer, base: str) -> Iterator[str]:
    """The same share through sshfs."""
    mountpoint = os.path.join(base, "sshfs")
    os.makedirs(mountpoint)
    options = server.sshd.options
    subprocess.run(
        [
            "sshfs",
            f"{server.sshd.user}@127.0.0.1:{server.root}",
            mountpoint,
            *("-p", str(server.sshd.port), "-F", os.devnull),
            *("-o", f"IdentityFile={options['identity']}"),
            *("-o", f"UserKnownHostsFile={options['known_hosts']}"),
        ],
        check=True,
    )
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", "-l", mountpoint], check=False)
