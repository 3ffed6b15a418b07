"""An SSH server at the far end of a long link, and how awayfs and other programs reach it."""

from __future__ import annotations

import os

from tests.harness import SftpServer


class Far:
    """An SSH server behind the proxy that listens at ``port`` (``bench.delay``)."""

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
