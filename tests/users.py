"""Other users for tests that root runs: whose awayfs mounts with fusermount3, as at a desktop.

They live in a mount namespace of their own, where they have an account and ``/dev/fuse`` is open
to all, as udev makes it.
When the namespace goes, so do their mounts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.harness import PATIENCE_S, run

UID, GID = 61001, 61002
PROGRAMS = ("fusermount3", "nsenter", "setpriv", "unshare")
needs_users = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(program) is None for program in PROGRAMS),
        reason="wants root, to be other users, and " + ", ".join(PROGRAMS),
    ),
]


_TRIED = """
import subprocess, sys, awayfs.daemon.main
subprocess.run([sys.executable, "-c", ""], check=True)
"""
"""setpriv(1) starts a program with more rights than the program has then."""


@dataclass(frozen=True)
class User:
    """Somebody in a namespace; ``groups`` are those beside ``gid``."""

    namespace: str
    uid: int = UID
    gid: int = GID
    groups: tuple[int, ...] = ()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is put behind to be run by this user."""
        groups = ",".join(map(str, self.groups))
        more = ("--groups", groups) if groups else ("--clear-groups",)
        ids = ("--reuid", str(self.uid), "--regid", str(self.gid), *more)
        return ("nsenter", f"--mount={self.namespace}", "setpriv", *ids, "--")


@contextlib.contextmanager
def namespace(base: str) -> Iterator[str]:
    """A mount namespace, by the path that nsenter(1) takes."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 3600"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        path = f"/proc/{holder.pid}/ns/mnt"
        device = os.path.join(base, "fuse")
        run("mknod", "-m", "666", device, "c", "10", "229")
        accounts = os.path.join(base, "passwd")  # fusermount3 wants a name
        with open("/etc/passwd") as known, open(accounts, "w") as file:
            file.write(known.read() + f"awayfstest:x:{UID}:{GID}::/:/bin/sh\n")
        for ours, place in ((device, "/dev/fuse"), (accounts, "/etc/passwd")):
            run("nsenter", f"--mount={path}", "mount", "--bind", ours, place)
        yield path
    finally:
        holder.kill()
        holder.wait()


def python_for(user: User) -> tuple[str, dict[str, str]]:
    """An interpreter that a user can run, and the environment in which it finds awayfs.

    Ours may lie in a home that nobody else can enter. Skips where there is none.
    """
    packages = [path for path in sys.path if path.endswith("site-packages")]
    source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")
    environment = {"PYTHONPATH": os.pathsep.join([source, *packages])}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        done = subprocess.run(
            [*user.prefix, python, "-c", _TRIED],
            capture_output=True,
            env={**os.environ, **environment},
            timeout=PATIENCE_S,
        )
        if done.returncode == 0:
            return python, environment
    pytest.skip("no Python that another user can run")
