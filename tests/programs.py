"""Small programs for tests: each runs as a process of its own, with a time limit, and is timed.

What they tell comes from inside the program, so that starting Python is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

BOUND_S = 20.0

_TRY = """
import json, os, sys, time
begun = time.monotonic()
code, data = 0, b""
try:
    if sys.argv[1] == "read":
        fd = os.open(sys.argv[2], os.O_RDONLY)
        while more := os.read(fd, 1 << 20):
            data += more
    elif sys.argv[1] == "stat":
        os.stat(sys.argv[2])
    elif sys.argv[1] == "list":
        data = json.dumps(sorted(os.listdir(sys.argv[2]))).encode()
    elif sys.argv[1] == "write":
        fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, sys.argv[3].encode())
        begun = time.monotonic() if sys.argv[4:] == ["close"] else begun
        os.close(fd)
except OSError as error:
    code = error.errno
seconds = time.monotonic() - begun
print(json.dumps([code, seconds, data[:1000].decode("latin-1"), len(data)]))
"""


@dataclass(frozen=True)
class Result:
    """What became of one system call or a few: the errno (0: well), how long, what was read."""

    code: int
    seconds: float
    text: str
    size: int


class Trial:
    """A program under way."""

    def __init__(self, what: str, path: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TRY, what, path, *more],
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Result:
        """Wait, bounded; a program that hangs is killed and fails the test."""
        try:
            said, _ = self.process.communicate(timeout=BOUND_S)
        finally:
            self.process.kill()
        return Result(*json.loads(said))


def attempt(what: str, path: str, *more: str) -> Result:
    """``read``, ``stat`` or ``list`` a path, or ``write`` a text to it."""
    return Trial(what, path, *more).result()
