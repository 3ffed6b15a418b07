"""``python -m tests.model``: see the package's docstring."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import sys
import time

from tests.model.limits import bound_memory
from tests.model.machines import BOTH, MACHINES
from tests.model.script import generate, play, shown, shrink
from tests.model.world import done

STEPS = 9


def main() -> int:
    """Exit code 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--seed", type=int, default=1, help="of the first sequence")
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0, help="go on until then")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a sequence, at most")
    parser.add_argument("--machine", choices=[*MACHINES, "both"], default="both")
    parser.add_argument("--no-ids", action="store_true", help="on no server, as over SFTP")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--keep-going", action="store_true", help="after a failure")
    parser.add_argument("--verbose", action="store_true", help="count what happened")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    bound_memory()
    gc.freeze()  # what is imported stays; of the rest hardly anything refers to itself
    gc.set_threshold(20_000, 20, 50)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what it has in memory goes, too
    machines = list(BOTH) if given.machine == "both" else [given.machine]
    started, played, found = time.monotonic(), 0, 0
    while played < given.sequences or time.monotonic() - started < given.seconds:
        machine, seed = machines[played % len(machines)], given.seed + played
        steps = generate(machine, seed, given.steps, ids=False if given.no_ids else None)
        failure = play(machine, steps)
        played += 1
        if failure is None:
            continue
        found += 1
        if not given.no_shrink:
            steps, failure = shrink(machine, steps, failure)
        print(f"---- {machine}, seed {seed}\n{failure}\n\n{shown(machine, steps)}\n", flush=True)
        if not given.keep_going:
            break
    if given.verbose:
        for what, times in sorted(done.items()):
            print(f"{times:7} {what}")
    print(f"{played} sequences, {found} failures, {time.monotonic() - started:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
