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

from tests.harness import Client, SftpServer
from tests.sshd import free_port

from awayfs import cachectl
from bench.delay import delayed
from bench.timing import Result, compare

FILES = 2_000
SIZE = 4 << 10
ONE_WAY_S = 0.010


class Far:
    """An SSH server behind the proxy; each ``tree`` is a directory that nobody has seen yet."""

    def __init__(self, base: str, port: int) -> None:
        self.server = SftpServer(base)
        self.port = port
        at, direct = f"127.0.0.1:{port}", f"127.0.0.1:{self.server.sshd.port}"
        self.server.url = self.server.url.replace(direct, at)
        known = self.server.sshd.known_hosts
        with open(known) as file:
            text = file.read()
        with open(known, "w") as file:
            file.write(text + text.replace(str(self.server.sshd.port), str(port)))
        self._numbers = itertools.count()

    @property
    def ssh(self) -> list[str]:
        """ssh to it, as the peers call it."""
        options = self.server.sshd.options
        return [
            *("ssh", "-F", os.devnull, "-p", str(self.port), "-i", options["identity"]),
            *("-o", f"UserKnownHostsFile={options['known_hosts']}", "-o", "BatchMode=yes"),
        ]

    @property
    def login(self) -> str:
        """Account and host."""
        return f"{self.server.sshd.user}@127.0.0.1"

    def tree(self) -> str:
        """A new directory with files; its name."""
        name = f"tree{next(self._numbers)}"
        for number in range(FILES):
            directory = f"{self.server.root}/{name}/d{number // 100:02}"
            if number % 100 == 0:
                os.makedirs(directory)
            with open(f"{directory}/f{number % 100:02}", "wb") as file:
                file.write(os.urandom(SIZE))
        return name


def hoarding_cases(base: str) -> Iterator[Result]:
    """The walk against both peers."""
    port = free_port()
    far = Far(base, port)
    client = Client(base, far.server)
    tree = ""

    def fresh() -> None:
        nonlocal tree
        shutil.rmtree(f"{base}/copy", ignore_errors=True)
        os.mkdir(f"{base}/copy")
        tree = far.tree()

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
