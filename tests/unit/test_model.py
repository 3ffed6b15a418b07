"""A fixed set of the model's sequences, and what it once found.

``python -m tests.model`` looks further (see ``tests/model``). The set runs in two processes
beside each other, in memory; the seeds are fixed, so that a failure is one of a change.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SHARES = (("apart", 1), ("apart", 2), ("apart", 3), ("in-turns", 1))
SEQUENCES = 510
"""Of each share: more than 2,000 together."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_promise_is_broken() -> None:
    """Two thousand random sequences of two clients and of others on the server."""
    pending = [[*map(str, share)] for share in SHARES]
    running: list[subprocess.Popen[str]] = []
    failed: list[str] = []
    while pending or running:
        while pending and len(running) < 2:
            running.append(_begun(*pending.pop(0)))
        process = running.pop(0)
        output, _ = process.communicate()
        if process.returncode:
            failed.append(output)
    assert not failed, "\n".join(failed)


def _begun(machine: str, seed: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.model", "--machine", machine, "--seed", seed]
    return subprocess.Popen(
        [*command, "--sequences", str(SEQUENCES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
