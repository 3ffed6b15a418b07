"""A run as a list of steps: made from a seed, played, and shrunk when it breaks something."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from awayfs.core.conflicts import Resolution
from tests.model import limits
from tests.model.machine import PATHS, Machine
from tests.model.machines import MACHINES
from tests.model.world import Broken

Step = tuple[str, dict[str, Any]]
SHRINK_S = 120.0
ALWAYS = (None, None, None, *map(str, Resolution))
"""How a run decides: in half of them always the same."""
WITH_IDS = 0.7
"""How often the server tells objects apart, whatever they are called. Over SFTP it does not."""


def generate(machine: str, seed: int, most: int, *, ids: bool | None = None) -> list[Step]:
    """The steps of one run; the same for the same seed. ``ids``: not as the seed decides."""
    rng = Random(f"{machine} {seed}")
    kind = MACHINES[machine]
    rules = {n: getattr(kind, n).rule for n in dir(kind) if hasattr(getattr(kind, n), "rule")}
    weights = [weight for weight, _ in rules.values()]
    without = rng.sample(PATHS, rng.choice((0, 0, 1, 2, 4)))
    begin = {
        "without": without,
        "decisions": rng.randrange(1 << 16),
        "always": rng.choice(ALWAYS),
        "ids": rng.random() < WITH_IDS,
    }
    if ids is not None:
        begin["ids"] = ids
    steps: list[Step] = [("begin", begin)]
    for name in rng.choices(list(rules), weights, k=rng.randint(3, most)):
        steps.append((name, {key: choose(rng) for key, choose in rules[name][1].items()}))
    return steps


def play(machine: str, steps: list[Step]) -> str | None:
    """What broke, after what happened; None if nothing did."""
    run = MACHINES[machine]()
    closing: str | None = None
    try:
        broken = _broken(run, lambda: _work(run, steps), limits.SECONDS)
    finally:
        closing = _broken(run, run.end, limits.CLOSING_S)
    return broken or closing


def _work(run: Machine, steps: list[Step]) -> None:
    for name, arguments in steps:
        getattr(run, name)(**arguments)
    run.finish()


def _broken(run: Machine, work: Callable[[], None], seconds: float) -> str | None:
    try:
        with limits.bounded_time(seconds):
            work()
    except Broken as broken:
        return "\n".join([*run.world.log, str(broken)])
    except Exception:
        return "\n".join([*run.world.log, traceback.format_exc(limit=-6)])
    return None


def kind_of(failure: str, steps: list[Step]) -> str:
    """What must stay the same while a failure is shrunk: its first words."""
    for line in reversed(failure.splitlines()):
        for words in ("lost", "torn", "not the same", "it does not come", "the second", "fsck"):
            if line.startswith(words):
                return words
        for words in ("left over", "not at rest", "no decision", limits.WORDS):
            if line.startswith(words):
                return words
    return failure.strip().splitlines()[-1][:40]


def shrink(machine: str, steps: list[Step], failure: str) -> tuple[list[Step], str]:
    """Fewer steps and operations that break the same."""
    wanted, until = kind_of(failure, steps), time.monotonic() + SHRINK_S
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(steps):
            if time.monotonic() > until:
                return steps, failure
            found = play(machine, candidate)
            if found is not None and kind_of(found, candidate) == wanted:
                steps, failure, smaller = candidate, found, True
                break
    return steps, failure


def _smaller(steps: list[Step]) -> Iterator[list[Step]]:
    size = len(steps) // 2
    while size:
        for start in range(1, len(steps) - size + 1):
            yield steps[:start] + steps[start + size :]
        size //= 2
    for index, (name, arguments) in enumerate(steps):
        for key, value in arguments.items():
            if isinstance(value, list):
                for at in range(len(value)):
                    less = {**arguments, key: value[:at] + value[at + 1 :]}
                    yield [*steps[:index], (name, less), *steps[index + 1 :]]


def shown(machine: str, steps: list[Step]) -> str:
    """As a call of ``play``."""
    lines = "".join(f"    {step!r},\n" for step in steps)
    return f"play({machine!r}, [\n{lines}])"
