"""What has to wait can be interrupted by a signal, and interrupting it breaks nothing.

The worker is stopped, so that the server answers nothing for as long as the test likes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, mounted, needs_fuse
from tests.sshd import descendants

pytestmark = needs_fuse

WITHIN_S = 4.0
"""The wait would be much longer; the machine may be slow."""
HANDLED = (
    "import os, signal, sys, time\n"
    "class Rung(Exception): pass\n"
    "def ring(*_): raise Rung\n"
    "signal.signal(signal.SIGUSR1, ring)\n"
    "print('ready', flush=True)\n"
    "try:\n    {work}\n"
    "except Rung: print('rung', flush=True)\n"
)


@contextlib.contextmanager
def stopped(client: Client) -> Iterator[None]:
    """The server gives no answer meanwhile."""
    workers = descendants(client.pid)
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def interrupted(work: str, *args: str, number: int = signal.SIGUSR1) -> tuple[str, float, int]:
    """Run it, send a signal once it waits; what it said, how long that took, its status."""
    program = [sys.executable, "-c", HANDLED.format(work=work), *args]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(1.0)
        assert process.poll() is None, "it did not wait"
        began = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        return said.strip(), time.monotonic() - began, process.returncode
    finally:
        process.kill()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with mounted("dir", str(tmp_path), "timeout=60,fresh=600,cache-size=2M") as one:
        share = Path(one.server.root)
        (share / "never").mkdir()
        (share / "never/f").write_text("unseen")
        (share / "file").write_bytes(b"1" * (1 << 20))
        (share / "direct").write_bytes(b"2" * 4096)
        (share / "program").write_bytes(Path("/bin/true").read_bytes())
        (share / "program").chmod(0o755)
        os.listdir(one.mountpoint)
        yield one


WAITS = {
    "listing": "os.listdir(sys.argv[1] + '/never')",
    "lookup": "os.stat(sys.argv[1] + '/never/f')",
    "read": "fd = os.open(sys.argv[1] + '/file', os.O_RDONLY | os.O_DIRECT); os.read(fd, 4096)",
    "write": (
        "fd = os.open(sys.argv[1] + '/new', os.O_WRONLY | os.O_CREAT)\n"
        "    while True: os.write(fd, b'3' * 65536)"
    ),
    "truncate": "os.truncate(sys.argv[1] + '/file', 1 << 30)",
}


@pytest.mark.parametrize("what", WAITS)
def test_a_signal_that_is_handled(client: Client, what: str) -> None:
    with stopped(client):
        if what == "truncate":  # there must be something to be waited for
            Path(client.path("unsent")).write_text("x")
        said, seconds, status = interrupted(WAITS[what], client.mountpoint)
        assert (said, status) == ("rung", 0) and seconds < WITHIN_S
    assert Path(client.path("never/f")).read_text() == "unseen"
    assert Path(client.path("file")).read_bytes() == b"1" * (1 << 20)
    client.sync()
    if what == "write":
        assert Path(client.server.root, "new").read_bytes() == Path(client.path("new")).read_bytes()


def test_a_signal_that_ends_the_program(client: Client) -> None:
    """Also where the kernel reads ahead, and waits for its own pages."""
    with stopped(client):
        work = "open(sys.argv[1] + '/file', 'rb').read()"
        _, seconds, status = interrupted(work, client.mountpoint, number=signal.SIGTERM)
        assert status == -signal.SIGTERM and seconds < WITHIN_S
    assert Path(client.path("file")).read_bytes() == b"1" * (1 << 20)


def test_a_signal_in_a_read_through_the_page_cache(client: Client) -> None:
    with stopped(client):
        work = "open(sys.argv[1] + '/file', 'rb').read()"
        said, seconds, _ = interrupted(work, client.mountpoint)
        assert said == "rung" and seconds < WITHIN_S


def test_what_is_read_directly_can_be_mapped_and_run(client: Client) -> None:
    """A file that is not here when it is opened is no other file for that."""
    share = Path(client.server.root)
    work = (
        "import mmap\n"
        "for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):\n"
        "    with open(sys.argv[1], 'rb') as f, mmap.mmap(f.fileno(), 0, kind, 1) as m: a = m[:]\n"
        "    assert a == open(sys.argv[2], 'rb').read()\n"
    )
    for name in ("file", "direct"):
        script = f"import sys\n{work}"
        command = [sys.executable, "-c", script, client.path(name), str(share / name)]
        subprocess.run(command, check=True, timeout=60)
    time.sleep(0.1)
    client.awayfs("cull", client.mountpoint)
    subprocess.run([client.path("program")], check=True, timeout=60)
