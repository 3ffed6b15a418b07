"""A tree ten times as large as the cache goes through it: what culling costs, and what it keeps."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from tests.acceptance.test_culling import (
    Watch,
    content_missing,
    read_past_the_kernel,
    tree_of_small_files,
)
from tests.harness import Client, DirServer, eventually

DIRECTORIES, FILES = 200, 250


def culling_case(base: str) -> Iterator[str]:
    """``find`` and ``grep -r`` over 50,000 small files, with a limit and without; then offline."""
    server = DirServer(base)
    made = tree_of_small_files(server.root, DIRECTORIES, FILES)
    total = sum(map(len, made.values()))
    limit = total // 10
    seconds: dict[str, float] = {}
    for name, options in (("all", "fresh=3600"), ("tenth", f"fresh=3600,cache-size={limit}")):
        client = Client(base, server, name, anew=True)
        try:
            client.mount(options)
            with Watch(client) as watch:
                client.awayfs("pin", client.path("d007"), timeout=300)
                seconds[name] = _grep(client.mountpoint)
            if name == "tenth":
                yield (
                    f"{len(made)} files, {total >> 20} MiB, a cache of a tenth: at most "
                    f"{watch.most / limit:.2f} of the limit in use"
                )
                yield from _offline(client, server, made)
        finally:
            client.close()
    yield (
        f"find and grep -r: cache for all {seconds['all']:.1f} s   for a tenth "
        f"{seconds['tenth']:.1f} s   ratio {seconds['all'] / seconds['tenth']:.2f}"
    )


def _grep(root: str) -> float:
    started = time.perf_counter()
    for command in (["find", root, "-type", "f"], ["grep", "-rl", "needle", root]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _offline(client: Client, server: DirServer, made: dict[str, bytes]) -> Iterator[str]:
    """Whether ``hoard --check`` was right about every file once the server is gone."""
    server.cut()
    eventually(lambda: client.status()["mode"] == "disconnected", "being offline", 60)
    missing = content_missing(client)
    wrong = [
        path
        for path, data in made.items()
        if read_past_the_kernel(client.path(path)) != (None if path in missing else data)
    ]
    pinned = sum(path.startswith("d007/") for path in missing)
    yield (
        f"offline: {len(made) - len(missing)} here, {len(missing)} missing, {pinned} of them "
        f"pinned; hoard --check was wrong about {len(wrong)}"
    )
    server.restore()
