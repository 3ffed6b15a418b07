"""Programs that read everything they see get what is here, and pull nothing in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_merge_rules import configure, configured
from tests.harness import Client, needs_fuse

pytestmark = needs_fuse

NAMED = (
    "import ctypes, os, sys, threading\n"
    "def work():\n"
    "    try:\n"
    "        for path in sys.argv[2:]:\n"
    "            if os.path.isdir(path):\n"
    "                print(' '.join(sorted(os.listdir(path))))\n"
    "            else:\n"
    "                with open(path) as f: print(f.read())\n"
    "    except OSError as error: print(os.strerror(error.errno))\n"
    "if sys.argv[1].startswith('thread:'):\n"
    "    ctypes.CDLL(None).prctl(15, sys.argv[1][7:].encode())\n"
    "    thread = threading.Thread(target=work); thread.start(); thread.join()\n"
    "else:\n"
    "    ctypes.CDLL(None).prctl(15, sys.argv[1].encode()); work()\n"
)
NO_DATA = os.strerror(61)


def as_program(name: str, *paths: str) -> str:
    """What a process of that name, or with ``thread:`` a thread of one, reads."""
    done = subprocess.run(
        [sys.executable, "-c", NAMED, name, *paths], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with configured("dir", tmp_path, "") as one:
        share = Path(one.server.root)
        for name in ("here", "there", "deep/f"):
            (share / name).parent.mkdir(exist_ok=True)
            (share / name).write_text(name)
        (share / "large").write_bytes(b"0" * (4 << 20))
        assert Path(one.path("here")).read_text() == "here"
        with open(one.path("large"), "rb") as file:
            file.read(10)
        yield one


@pytest.mark.parametrize("name", ["tracker-extract", "tumblerd", "thread:updatedb"])
def test_indexers_get_what_is_here(client: Client, name: str) -> None:
    assert as_program(name, client.path("here")) == "here"
    began = time.monotonic()
    assert as_program(name, client.path("there")) == NO_DATA
    assert as_program(name, client.path("large")) == NO_DATA
    assert as_program(name, client.path("deep")) == NO_DATA
    assert as_program(name, client.mountpoint) == "deep here large there"
    assert time.monotonic() - began < 10
    assert client.status()["cache"]["bytes"] < 2 << 20
    assert "indexer" in client.awayfs("why", client.path("there"))
    assert as_program("some-program", client.path("there")) == "there"
    assert as_program("some-program", client.path("deep")) == "f"
    assert as_program(name, client.path("there"), client.path("deep")) == "there\nf"


def test_a_copied_program_of_that_name(client: Client, tmp_path: Path) -> None:
    """The name of the file that is run is the name of the process."""
    program = tmp_path / "baloo_file"
    shutil.copy(shutil.which("cat") or "/bin/cat", program)
    done = subprocess.run([str(program), client.path("there")], capture_output=True, timeout=60)
    assert done.returncode and NO_DATA.encode() in done.stderr
    done = subprocess.run([str(program), client.path("here")], capture_output=True, timeout=60)
    assert done.stdout == b"here"


def test_the_list_is_the_users(client: Client) -> None:
    configure(client, 'indexers = ["mydaemon"]\n')
    time.sleep(1.1)
    assert as_program("mydaemon", client.path("there")) == NO_DATA
    assert as_program("tumblerd", client.path("there")) == "there"
    configure(client, "indexers = false\n")
    time.sleep(1.1)
    assert as_program("mydaemon", client.path("deep/f")) == "deep/f"
