"""``python -m tests.model``: see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import MACHINES
from tests.model.world import done as happened

AT_A_TIME = 200
STEPS = 12


def run(machine: str, seeded: int, sequences: int, steps: int, shrink: bool) -> None:
    """So many sequences from one seed; raises what the first failure, shrunk, says."""
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        seed(seeded)(type(machine, (MACHINES[machine],), {})),
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> int:
    """Exit code 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="go on with further seeds")
    parser.add_argument("--sequences", type=int, default=AT_A_TIME)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--machine", choices=[*MACHINES, "both"], default="both")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--keep-going", action="store_true", help="after a failure")
    parser.add_argument("--verbose", action="store_true", help="count what happened")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    machines = list(MACHINES) if given.machine == "both" else [given.machine]
    started, done, found, number = time.monotonic(), 0, 0, given.seed
    while True:
        for machine in machines:
            share = given.sequences // len(machines)
            try:
                run(machine, number, share, given.steps, not given.no_shrink)
            except BaseException:
                if isinstance(sys.exc_info()[1], KeyboardInterrupt):
                    raise
                found += 1
                print(f"---- {machine}, seed {number}", flush=True)
                traceback.print_exc(limit=-4)
                if not given.keep_going:
                    return 1
            done += share
        number += 1
        if time.monotonic() - started >= given.seconds:
            break
    if given.verbose:
        for what, times in sorted(happened.items()):
            print(f"{times:7} {what}")
    print(f"{done} sequences, {found} failures, {time.monotonic() - started:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
