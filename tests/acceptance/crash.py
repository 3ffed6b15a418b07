"""Killing what belongs to a mount while it is worked on, and comparing with what was promised."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from awayfs.control.client import Client as ControlClient
from awayfs.control.client import ControlError
from tests.harness import Client, SftpServer, eventually, run, tree
from tests.sshd import descendants

WORKER = os.path.join(os.path.dirname(__file__), "crash_worker.py")
FSCK = """
import sys
from awayfs.store import fsck
from awayfs.store.store import Store
store = Store.open(sys.argv[1])
for problem in fsck.check(store):
    if not problem.leftover:
        print(problem.rule, problem.text)
store.close()
"""
DEAD_WITHIN_S = 20.0


class Crashes:
    """One volume that is killed again and again; the mirror says what must be in it."""

    def __init__(self, client: Client, base: str, seed: int) -> None:
        self.client = client
        self.mirror = os.path.join(base, "mirror")
        os.makedirs(self.mirror)
        self.rng = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.operations = 0
        self.in_flight: dict[str, Any] | None = None
        self._pid = client.pid
        self._work = subprocess.Popen(
            [sys.executable, WORKER, client.mountpoint, self.mirror, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the program that works; the mount is the caller's."""
        self._work.kill()
        self._work.wait()
        for pipe in (self._work.stdin, self._work.stdout):
            if pipe is not None:
                pipe.close()

    # -- the daemon's lives ---------------------------------------------------------------

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the daemon, without a process of its own for it."""
        (path,) = glob.glob(f"{self.client.runtime}/awayfs/*.sock")
        with ControlClient(path) as control:
            return control.call(method, params, timeout=DEAD_WITHIN_S)

    def mount(self, fault: str = "") -> None:
        """Mount; a daemon that dies of ``fault`` before it is ready is followed by another."""
        try:
            self.client.mount(fault=fault)
        except AssertionError:
            if not fault:
                raise
            self._count(fault)
            self.client.kill()
            self.client.mount()
        self._pid = self.client.pid

    def alive(self) -> bool:
        """Whether the daemon lives."""
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
        except OSError:
            return False

    def _count(self, fault: str) -> None:
        self.kills[fault.partition(":")[0] or "at random"] += 1

    def clear(self, fault: str = "") -> None:
        """Make sure that the daemon is dead, and take the dead mount away."""
        died_by_itself = not self.alive()
        if not died_by_itself:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        eventually(lambda: not self.alive(), "the daemon's end")
        self._count(fault if died_by_itself else "")
        self.client.clear()

    def mount_and_check(self, fault: str = "") -> None:
        """Mount, and compare; a daemon that dies of ``fault`` meanwhile is followed by another."""
        self.mount(fault)
        try:
            self.check_mount()
        except OSError as error:
            if not fault or error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                raise
            eventually(lambda: not self.alive(), "the daemon's end")
            self.clear(fault)
            self.mount()
            self.check_mount()

    # -- the work -------------------------------------------------------------------------

    def _say(self, command: str) -> None:
        assert self._work.stdin is not None
        self._work.stdin.write(command + "\n")
        self._work.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._work.stdout is not None
        answer: dict[str, Any] = json.loads(self._work.stdout.readline())
        assert "failed" not in answer, f"{answer['failed']}\n{self.client.log[-6000:]}"
        self.operations += answer.get("done", 0)
        return answer

    def _tell(self, command: str) -> dict[str, Any]:
        self._say(command)
        return self._hear()

    def work(self, operations: int) -> None:
        """Work undisturbed."""
        answer = self._tell(f"go {operations}")
        assert "down" not in answer, answer

    def work_and_die(self, fault: str, seconds: float) -> None:
        """Work until the daemon dies of ``fault``, or is killed after ``seconds``."""
        killer = threading.Thread(target=self._kill_after, args=(seconds,))
        self._say("go 100000")
        killer.start()
        answer = self._hear()
        killer.join()
        self.in_flight = answer["down"]
        self.clear(fault)

    def _kill_after(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(min(0.02, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def work_beside(self, operations: int, kill: Any, pauses: float) -> None:
        """Work while ``kill`` is called again and again until the work is done."""
        done = threading.Event()
        self._say(f"go {operations}")

        def disturb() -> None:
            while not done.wait(self.rng.uniform(0.02, pauses)):
                kill()

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            answer = self._hear()
        finally:
            done.set()
            disturber.join()
        assert "down" not in answer, answer

    # -- killing what talks to the server -------------------------------------------------

    def kill_worker(self) -> None:
        """End the process that the adapter runs in, and let the daemon connect again."""
        for pid in descendants(self._pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"awayfs.remotes.worker" in file.read():
                    os.kill(pid, signal.SIGKILL)
                    self.kills["worker process"] += 1
        self._reconnect()

    def kill_session(self) -> None:
        """End the server's side of the session, answers on the way being lost."""
        server = self.client.server
        assert isinstance(server, SftpServer)
        sessions = server.sshd.sessions()
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills["sshd session"] += bool(sessions)
        self._reconnect()

    def _reconnect(self) -> None:
        with contextlib.suppress(ControlError):
            self.ask("auto")

    # -- comparing ------------------------------------------------------------------------

    def grain(self) -> int:
        return self.client.server.time_grain_ns

    def check_mount(self) -> None:
        """The mount shows all that was acknowledged, and of what was in flight all or nothing."""
        flight = self.in_flight or {"op": "none", "paths": []}
        touched = {*flight["paths"], flight.get("path", ""), flight.get("to", "")} - {""}
        seen = self._tree(self.client.mountpoint)
        contents = self._contents(self.client.mountpoint, touched)
        times = self._times(touched & seen.keys())
        os.listdir(self.client.mountpoint)  # a mount that died meanwhile is not empty but gone
        excused = set(flight["paths"])
        differences = _differences(seen, self._tree(self.mirror), excused)
        if differences and self.in_flight is not None:
            old = self._contents(self.mirror, excused)
            self._tell("apply")
            excused = touched
            differences = _differences(seen, self._tree(self.mirror), excused)
            if differences and self._came_in_part(contents, old):
                differences = _differences(seen, self._tree(self.mirror), excused)
        assert not differences, "\n".join([f"in flight: {flight}", *differences, *self._tail()])
        for path in excused & times.keys():
            os.utime(f"{self.mirror}/{path}", ns=(times[path], times[path]))
        self.in_flight = None
        self._tell("back")

    def _tree(self, root: str) -> dict[str, Any]:
        return tree(root, mtime_grain_ns=self.grain(), directories_mtime=False)

    def _contents(self, root: str, paths: set[str]) -> dict[str, bytes]:
        found = {}
        for path in paths:
            if os.path.isfile(f"{root}/{path}") and not os.path.islink(f"{root}/{path}"):
                with open(f"{root}/{path}", "rb") as file:
                    found[path] = file.read()
        return found

    def _times(self, paths: set[str]) -> dict[str, int]:
        statuses = {path: os.lstat(self.client.path(path)) for path in paths}
        return {p: s.st_mtime_ns for p, s in statuses.items() if stat.S_ISREG(s.st_mode)}

    def _came_in_part(self, there: dict[str, bytes], old: dict[str, bytes]) -> bool:
        """A write in flight may have come through up to some byte: the mirror follows."""
        new = self._contents(self.mirror, set(old))
        for path in old.keys() & new.keys() & there.keys():
            pairs = enumerate(zip(there[path], new[path], strict=False))
            upto = next((at for at, (a, b) in pairs if a != b), len(there[path]))
            if there[path][upto:] != old[path][upto : len(there[path])]:
                return False
            with open(f"{self.mirror}/{path}", "r+b") as file:
                file.write(there[path])
                file.truncate()
        return True

    def _tail(self) -> list[str]:
        with open(self.mirror + ".log") as file:
            done = file.read().splitlines()[-60:]
        return ["", "operations:", *done, "", "daemon.log:", *self.client.log.splitlines()[-60:]]

    def _settled(self) -> bool:
        """Whether all is sent or needs a person; a busy server may not answer in time at once."""
        try:
            self.ask("online")
        except ControlError:
            return False
        self.client.sync(check=False)
        status = self.ask("status")
        pending = status["pending"]
        return bool(status["conflicts"] or pending["parked"]) or not pending["records"]

    def check_server(self) -> None:
        """All is sent, once and without a conflict, and the server is the mirror."""
        with contextlib.suppress(AssertionError):  # what is left is told below
            eventually(self._settled, "all is sent", timeout=60)
        status = self.ask("status")
        left = [str(self.ask("journal_list")), str(self.ask("conflicts")), *self._tail()]
        assert not status["pending"]["records"], "\n".join(left)
        assert not status["pending"]["parked"], "\n".join(left)
        assert not status["conflicts"], "\n".join(left)
        seen, wanted = self._tree(self.client.server.root), self._tree(self.mirror)
        differences = _differences(seen, wanted, set())
        assert not differences, "\n".join(["server, mirror:", *differences, *self._tail()])

    def check_store(self) -> None:
        """After an orderly end, the state obeys all rules."""
        self.client.umount()
        eventually(lambda: not self.alive(), "the daemon's end")
        (volume,) = glob.glob(f"{self.client.state}/awayfs/volumes/*/")
        found = run(sys.executable, "-c", FSCK, volume.rstrip("/"))
        assert found == "", found


def _differences(seen: dict[str, Any], wanted: dict[str, Any], excused: set[str]) -> list[str]:
    """What differs, but for the times of ``excused``."""
    return [
        f"{path}: {_short(seen.get(path))} != {_short(wanted.get(path))}"
        for path in sorted(seen.keys() | wanted.keys())
        if _fact(seen, path, excused) != _fact(wanted, path, excused)
    ]


def _short(fact: Any) -> Any:
    """Without most of the digest."""
    return fact and tuple(part[:8] if isinstance(part, str) else part for part in fact)


def _fact(facts: dict[str, Any], path: str, excused: set[str]) -> Any:
    fact = facts.get(path)
    if fact is not None and path in excused and len(fact) == 6:
        return (*fact[:4], fact[5])
    return fact
