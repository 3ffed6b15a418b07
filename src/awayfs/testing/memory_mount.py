"""Serve a `MemoryFS` on a real mount, under the control of another process.

    python -m awayfs.testing.memory_mount MOUNTPOINT [OPTIONS AS JSON]

Prints one JSON object when INIT is done, then reads one JSON list a line from standard
input (a command and its arguments) and answers each with one JSON value. End of input
unmounts lazily and ends. A process must never touch a mount that it serves itself, so
tests run this one and use the mount from their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from awayfs.fuse import passthrough
from awayfs.fuse.mount import MountError, mount, unmount
from awayfs.fuse.negotiate import SessionOptions
from awayfs.fuse.notify import Notifier
from awayfs.fuse.session import Session
from awayfs.testing.memory_fs import MemoryFS


class Server:
    """One mounted `MemoryFS` and what a test may ask about it."""

    def __init__(self, fd: int, options: dict[str, Any]) -> None:
        self.fs = MemoryFS(
            backing=options.get("backing", ""),
            valid=options.get("valid", 60.0),
            open_flags=options.get("open_flags", 0),
        )
        self.fd = self.fs.fuse_fd = fd
        want = SessionOptions(**options.get("session", {}))
        handlers = dict(self.fs.handlers)
        for kind in list(handlers):
            if kind.__name__ in options.get("without", []):
                del handlers[kind]
        self.session = Session(fd, handlers, want=want)

    async def start(self) -> dict[str, Any]:
        self.session.attach()
        settled = await self.session.wait_ready()
        self.fs.notifier = self.notifier = Notifier(self.fd, minor=settled.minor)
        return {
            "minor": settled.minor,
            "flags": str(settled.flags),
            "offered": str(settled.offered),
            "max_write": settled.max_write,
            "max_readahead": settled.max_readahead,
            "passthrough": settled.passthrough,
        }

    async def obey(self, command: str, *arguments: Any) -> Any:
        """Do one command; the JSON value that answers it."""
        return await getattr(self, f"do_{command}")(*arguments)

    async def do_counts(self) -> dict[str, int]:
        return self.session.requests

    async def do_log(self) -> list[str]:
        return self.fs.log

    async def do_lookups(self) -> dict[int, int]:
        return {nodeid: self.fs.lookups[nodeid] for nodeid in self.fs.lookups}

    async def do_probe(self) -> bool:
        return passthrough.probe(self.fd)

    async def do_wake(self) -> None:
        self.fs.wake()

    async def do_force(self, flags: int | None, fresh: bool = False) -> None:
        """Open with these FOPEN_* flags from now on, perhaps with another backing id."""
        self.fs.forced, self.fs.fresh_backing = flags, fresh

    async def do_closed(self) -> str:
        return (await self.session.wait_closed()).value

    async def do_pending(self) -> int:
        return self.session.pending

    async def do_notify(self, kind: str, *arguments: Any) -> list[int]:
        """Send a notification (names as str); how many were sent and missed so far."""
        encoded = [a.encode() if isinstance(a, str) else a for a in arguments]
        getattr(self.notifier, kind)(*encoded)
        await self.notifier.drain()
        return [self.notifier.sent, self.notifier.missed]

    async def do_tell(self, kind: str, *arguments: Any) -> None:
        """Send a notification without waiting for it."""
        encoded = [a.encode() if isinstance(a, str) else a for a in arguments]
        getattr(self.notifier, kind)(*encoded)

    async def do_told(self) -> int:
        """How many notifications the kernel has taken."""
        return self.notifier.sent + self.notifier.missed

    async def do_set_data(self, name: str, text: str) -> int:
        """Change a file in the root behind the kernel's back; its node id."""
        node = self.fs.root.children[name.encode()]
        node.data[:] = text.encode()
        return node.attr.ino

    async def do_add(self, name: str) -> int:
        """Make a file in the root behind the kernel's back; its node id."""
        node = self.fs._new(0o100644, os.getuid(), os.getgid())
        self.fs.root.children[name.encode()] = node
        return node.attr.ino

    async def do_remove(self, name: str) -> int:
        """Remove a name from the root behind the kernel's back; its node id."""
        return self.fs.root.children.pop(name.encode()).attr.ino


async def serve(fd: int, options: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    server = Server(fd, options)
    loop = asyncio.get_running_loop()
    print(json.dumps(await server.start()), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await server.obey(*json.loads(line))
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    server.notifier.close()


def main() -> None:
    mountpoint, options = sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")
    try:
        fd = mount(mountpoint, fsname="memory", **options.get("mount", {}))
    except MountError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        raise SystemExit(1) from error
    try:
        asyncio.run(serve(fd, options))
    finally:
        try:
            unmount(mountpoint, lazy=True)
        except MountError:
            pass


if __name__ == "__main__":
    main()
