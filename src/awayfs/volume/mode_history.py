"""The modes that a volume was in, kept over restarts of its daemon; and a stop that holds.

Kept as one value beside the other facts of the volume, rewritten at each change: some kilobytes,
and seldom. It is there to be read by people; only a stop by a brake is acted on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from awayfs.core.errors import StoreError
from awayfs.core.modes import Mode, ModeState
from awayfs.store.facts import Facts
from awayfs.volume.link import Link

log = logging.getLogger(__name__)

MODES, BRAKE = "volume.modes", "volume.brake"


def load(facts: Facts) -> list[ModeState]:
    """What was kept, oldest first; nothing where it cannot be read."""
    try:
        return [_state(values) for values in json.loads(facts.get(MODES) or "[]")]
    except (ValueError, TypeError, KeyError):
        return []


def at_start(facts: Facts, now_ns: int) -> ModeState:
    """The mode to begin with: a stop holds until it is confirmed, all else is found out anew."""
    brake = facts.get(BRAKE)
    if brake:
        return ModeState(Mode.STOPPED, cause=brake, since_ns=now_ns)
    return ModeState(Mode.DISCONNECTED, cause="starting", since_ns=now_ns)


def keep(facts: Facts, link: Link) -> None:
    """Write it down; a full disk is no reason not to change the mode."""
    text = json.dumps([_values(state) for state in link.history])
    brake = link.state.cause if link.stopped_by_brake else ""
    try:
        facts.set(MODES, text)
        if brake != (facts.get(BRAKE) or ""):
            facts.set(BRAKE, brake)
    except (OSError, StoreError) as error:
        log.warning("the history of modes is not kept: %s", error)


def told(states: Iterable[ModeState]) -> list[dict[str, object]]:
    """As ``status --json`` shows it."""
    return [_values(state) for state in states]


def _values(state: ModeState) -> dict[str, object]:
    values: dict[str, object] = {
        "mode": str(state.mode),
        "cause": state.cause,
        "since_ns": state.since_ns,
        "by_hand": state.by_hand,
    }
    return values if state.until_ns is None else {**values, "until_ns": state.until_ns}


def _state(values: dict[str, object]) -> ModeState:
    since, until = values["since_ns"], values.get("until_ns")
    if not isinstance(since, int) or not (until is None or isinstance(until, int)):
        raise ValueError(since, until)
    return ModeState(
        Mode(str(values["mode"])), bool(values["by_hand"]), str(values["cause"]), since, until
    )
