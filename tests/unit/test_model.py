"""A fixed set of the model's sequences, and what it once found.

``python -m tests.model`` looks further (see ``tests/model``). The set runs in two processes
beside each other, in memory; the seeds are fixed, so that a failure is one of a change. A sequence
that takes too long or too much memory (``tests/model/limits.py``) is a failure like any other.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

PROCESSES = 2
SEQUENCES = 1010
"""Of each process: more than 2,000 together."""
PARTS = 150
DECIDED = 60
STEPS = 6
"""Fewer than the command takes by itself: this is what ninety seconds of two cores allow."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_promise_is_broken() -> None:
    """Two thousand random sequences of two clients and of others on the server."""
    running = [_begun(1 + number * SEQUENCES) for number in range(PROCESSES)]
    try:
        outputs = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)  # it takes away what it has in memory
            process.wait()
    sound = [re.search(r"^\d+ sequences, 0 failures", out, re.M) for out in outputs]
    assert all(sound), "\n".join(outputs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sending_single_subtrees_makes_no_conflict() -> None:
    """Whatever is sent before the rest, and however often the daemon dies of it."""
    running = _begun(1, "--machine", "parts", sequences=PARTS)
    output = running.communicate()[0]
    assert re.search(r"^\d+ sequences, 0 failures", output, re.M), output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_decisions_at_any_time_lose_nothing() -> None:
    """Amid a synchronisation, while the server refuses, and taken back."""
    running = _begun(1, "--machine", "decided", sequences=DECIDED)
    output = running.communicate()[0]
    assert re.search(r"^\d+ sequences, 0 failures", output, re.M), output


def _begun(seed: int, *more: str, sequences: int = SEQUENCES) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.model", "--keep-going", "--no-shrink", *more]
    return subprocess.Popen(
        [*command, "--seed", str(seed), "--sequences", str(sequences), "--steps", str(STEPS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
