"""What a daemon tells of where it stands, when a signal asks for it."""

from __future__ import annotations

import subprocess
import sys

HANGING = """
import asyncio, logging, os, signal, sys
from awayfs.daemon.stacks import SIGNAL, tell_on_signal

async def inner(future):
    await future

async def outer(future):
    await inner(future)

async def main():
    tell_on_signal()
    task = asyncio.create_task(outer(asyncio.get_running_loop().create_future()), name="lost")
    await asyncio.sleep(0)
    for _ in range(2):
        os.kill(os.getpid(), SIGNAL)
        await asyncio.sleep(0.05)
    task.cancel()

logging.basicConfig(stream=sys.stderr)
asyncio.run(main())
print("lives")
"""


def test_a_signal_tells_threads_and_tasks_each_time() -> None:
    """The whole chain of what is awaited, and the daemon goes on."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "lives\n"
    assert done.stderr.count("most recent call first") == 2
    assert done.stderr.count("<Task pending name='lost'") == 2
    _, _, told = done.stderr.partition("<Task pending name='lost'")
    assert told.index("<Future pending") < told.index(" outer\n") < told.index(" inner\n")
