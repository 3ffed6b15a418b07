"""The parts of one storm: a server, the clients with their mounts, the ledger and the record."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter

from awayfs.daemon.stacks import SIGNAL
from tests.harness import Client, DirServer, Server, SftpServer, alive
from tests.sshd import descendants
from tests.storm.ledger import Ledger, block
from tests.storm.plan import Plan
from tests.storm.record import Record

COMMAND_S = 240.0
"""A command that takes longer hangs."""
MOUNT_TRIES = 5
STACKS_S = 1.0
"""What a daemon takes to tell where it stands."""
DIRECTORIES, FILES, BLOCKS = 4, 3, 30
"""What is on the server before anybody comes."""


def sealed(path: str, on: bool) -> None:
    """Whether a directory takes no writes; a mount upon it does. OSError where that cannot be."""
    done = subprocess.run(
        ["chattr", "+i" if on else "-i", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(done.stderr.strip())


class World:
    """Everything of one storm, below the directory ``base``; ``close`` ends all of it."""

    def __init__(self, plan: Plan, base: str) -> None:
        self.plan, self.base = plan, base
        self.record = Record(os.path.join(base, "ops.log"))
        self.ledger = Ledger(self.record)
        self.trash = os.fsencode(os.path.join(base, "trash"))
        os.makedirs(self.trash)
        self.server: Server = DirServer(base) if plan.kind == "dir" else SftpServer(base)
        self.clients = clients_of(base, self.server, plan)
        self.conflicts: Counter[str] = Counter()
        self.is_cut = False
        self._fill()
        for client in self.clients:
            sealed(client.mountpoint, True)

    def _fill(self) -> None:
        for directory in range(DIRECTORIES):
            os.makedirs(f"{self.server.root}/d{directory}/sub")
            for number in range(FILES):
                token, path = self.ledger.new("s"), f"d{directory}/sub/f{number}"
                with open(f"{self.server.root}/{path}", "wb") as file:
                    file.write(block(token) * BLOCKS)
                self.ledger.wrote(token, BLOCKS, os.fsencode(path))

    # -- the clients ----------------------------------------------------------------------

    def mount(self, client: Client) -> None:
        """Mount as planned; again if a fault came in between. AssertionError: it cannot be."""
        for attempt in range(1, MOUNT_TRIES + 1):
            try:
                client.mount(self.plan.options_of(client.name))
                return
            except AssertionError as error:
                self.record.log("mount failed", error)
                if attempt == MOUNT_TRIES:
                    raise
                time.sleep(1)

    def command(
        self, client: Client, *arguments: str, timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of awayfs, whatever it says; ``subprocess.TimeoutExpired`` if it hangs."""
        begun = time.monotonic()
        done = subprocess.run(
            [*client.command, *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env=client.env,
            check=False,
        )
        told = (done.returncode, done.stdout[-600:], done.stderr[-600:])
        took = round(time.monotonic() - begun, 1)
        self.record.log("COMMAND", client.name, *arguments, "->", *told, took)
        return done

    # -- the link -------------------------------------------------------------------------

    def cut(self) -> None:
        """The server is gone."""
        self.server.cut()
        self.is_cut = True

    def restore(self) -> None:
        """It is there, if it was gone."""
        if self.is_cut:
            self.server.restore()
            self.is_cut = False

    def sessions(self) -> list[int]:
        """The processes that serve; none for a directory."""
        return self.server.sshd.sessions() if isinstance(self.server, SftpServer) else []

    def kill_sessions(self) -> None:
        """Whoever is served loses the connection."""
        send(self.sessions(), signal.SIGKILL)

    def kill_workers(self, client: Client) -> None:
        """Whatever the daemon of a client started dies."""
        send(descendants(client.pid), signal.SIGKILL)

    # -- what hangs -----------------------------------------------------------------------

    def show_stacks(self) -> None:
        """Have each daemon's log say where it stands, and the record where it is in the kernel."""
        show_stacks(self.clients)
        for name, pid in (("storm", os.getpid()), *((c.name, c.pid) for c in self.clients)):
            for place in _in_the_kernel(pid):
                self.record.log("THREAD", name, place)

    def close(self) -> None:
        """End everything, also after a failure; the files stay."""
        end(self.clients)
        self.server.close()


def clients_of(base: str, server: Server, plan: Plan) -> list[Client]:
    """The clients of a storm; their directories are made if they are not there."""
    return [Client(base, server, name) for name in plan.actors if name != "server"]


def end(clients: list[Client]) -> None:
    """Kill the daemons and take the mounts away."""
    for client in clients:
        client.close()
        with contextlib.suppress(OSError):
            sealed(client.mountpoint, False)


def show_stacks(clients: list[Client]) -> None:
    """Have each daemon tell in its log where all its threads and tasks are."""
    running = [client.pid for client in clients if client.pid and alive(client.pid)]
    send(running, SIGNAL)
    time.sleep(STACKS_S)


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal processes, those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _in_the_kernel(pid: int) -> list[str]:
    places = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/syscall") as call:
                number = call.read().strip()
            with open(f"/proc/{pid}/task/{task}/wchan") as waits:
                places.append(f"{task} {number} {waits.read()}")
    return places
