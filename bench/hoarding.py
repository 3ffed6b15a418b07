"""Many small files over a long link: a hoard walk against ``rsync -a`` and ``tar`` over ssh.

Each fills an empty place from the same server, through the same proxy (``bench.delay``): awayfs
on a mount that is connected but knows nothing of the directory yet, asked by ``cachectl.fetch``
as any program can; the peers with the connection that they have to open.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator

from tests.harness import Client
from tests.sshd import free_port

from awayfs import cachectl
from bench.delay import delayed
from bench.far import Far
from bench.timing import Result, compare

FILES = 2_000
SIZE = 4 << 10
ONE_WAY_S = 0.010


def fresh_tree(far: Far, name: str) -> None:
    """A new directory with files, which nobody has seen yet."""
    for number in range(FILES):
        directory = f"{far.server.root}/{name}/d{number // 100:02}"
        if number % 100 == 0:
            os.makedirs(directory)
        with open(f"{directory}/f{number % 100:02}", "wb") as file:
            file.write(os.urandom(SIZE))


def hoarding_cases(base: str) -> Iterator[Result]:
    """The walk against both peers."""
    port = free_port()
    far = Far(base, port)
    client = Client(base, far.server, anew=True)
    tree, numbers = "", itertools.count()

    def fresh() -> None:
        nonlocal tree
        shutil.rmtree(f"{base}/copy", ignore_errors=True)
        os.mkdir(f"{base}/copy")
        tree = f"tree{next(numbers)}"
        fresh_tree(far, tree)

    def hoard() -> None:
        fd = os.open(client.path(tree), os.O_RDONLY | os.O_DIRECTORY)
        try:
            cachectl.fetch(fd)
        finally:
            os.close(fd)

    def rsync() -> None:
        shell = shlex.join(far.ssh)
        there = f"{far.login}:{far.server.root}/{tree}/"
        subprocess.run(["rsync", "-a", "-e", shell, there, f"{base}/copy"], check=True)

    def tar() -> None:
        order = f"tar -C {shlex.quote(far.server.root + '/' + tree)} -cf - ."
        with subprocess.Popen([*far.ssh, far.login, order], stdout=subprocess.PIPE) as ssh:
            subprocess.run(["tar", "-C", f"{base}/copy", "-xf", "-"], stdin=ssh.stdout, check=True)

    peers: list[tuple[str, Callable[[], None], float]] = [
        ("rsync", rsync, 1.0),
        ("tar|ssh", tar, 1 / 1.5),
    ]
    with delayed(port, far.server.sshd.port, ONE_WAY_S):
        try:
            client.mount("fresh=3600")
            for peer, work, wanted in peers:
                name = f"{FILES} files of 4 KiB at {ONE_WAY_S * 2e3:.0f} ms round trip"
                yield compare(name, hoard, work, peer=peer, wanted=wanted, before=fresh)
        finally:
            client.close()
            far.server.close()
