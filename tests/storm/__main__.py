"""``python -m tests.storm``: see the package's docstring."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable, Collection

from tests.storm.keeper import unfit, weathered
from tests.storm.naming import OPERATIONS as NAMING
from tests.storm.plan import ACTORS, ALL_FAULTS, FAULTS, FRESH, KINDS, SECONDS, Plan, varied
from tests.storm.writing import OPERATIONS as WRITING

BOTH = "both"


def main() -> int:
    """Exit code 1 if something was found."""
    parser = _parser()
    given = parser.parse_args()
    if given.actors == ("server",):
        parser.error("--actors: at least one of ann and ben has to take part")
    reason = unfit(given.kind)
    if reason:
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what it mounted goes, too
    plans = list(_plans(given))
    found = sum(not weathered(plan) for plan in plans)
    if len(plans) > 1:
        print(f"{len(plans)} storms, {found} with problems", flush=True)
    return 1 if found else 0


def _plans(given: argparse.Namespace) -> list[Plan]:
    kinds = KINDS if given.kind == BOTH else (given.kind,)
    if given.seeds:
        first, last = given.seeds
        seeds = range(first, last + 1)
        return [varied(kind, seed, given.seconds) for seed in seeds for kind in kinds]
    return [
        Plan(
            *(kind, given.seed, given.seconds, given.mount_options, given.ben_options),
            *(given.faults, given.only, given.actors, given.keep, given.killed_to_the_end),
        )
        for kind in kinds
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    add = parser.add_argument
    add("--kind", choices=[*KINDS, BOTH], default="dir", help="of server")
    add("--seed", type=int, default=1)
    add("--seeds", type=_range, metavar="FIRST-LAST", help="storms of varied sorts, one by one")
    add("--seconds", type=float, default=SECONDS, help="of the storm itself")
    options = parser.add_argument_group("one storm (with --seeds the seed decides)")
    add = options.add_argument
    add("--mount-options", default=FRESH, help="of both clients")
    add("--ben-options", default="", help="of the second client, if other ones")
    add("--faults", type=_some_of(ALL_FAULTS), default=FAULTS, metavar="NAME,...")
    add("--only", type=_some_of((*WRITING, *NAMING)), default=(), metavar="OPERATION,...")
    add("--actors", type=_some_of(ACTORS), default=ACTORS, metavar="NAME,...")
    add("--keep", choices=["local", "server", "both"], default="both", help="of a conflict")
    add("--killed-to-the-end", action="store_true", help="while all is sent, too")
    return parser


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not like 7-20")
    return int(found[1]), int(found[2])


def _some_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parsed(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parsed


if __name__ == "__main__":
    sys.exit(main())
