"""The mode of a volume: one state table.

What a person says (``awayfs offline``, ``online``, ``auto``) wins over what awayfs observes,
with two limits: nobody can command a dead link to work, and a safety stop holds until it is
confirmed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Mode(enum.StrEnum):
    """What a volume does with changes and with what it does not have."""

    CONNECTED = "connected"  # the server answers and the journal is empty or drains at once
    WRITE_BEHIND = "write-behind"  # the server answers, slowly: reads fetch, writes trickle
    REINTEGRATING = "reintegrating"  # the server is back; journal and listings are caught up
    DISCONNECTED = "disconnected"  # the server is not asked
    AUTH_REQUIRED = "auth-required"  # the server answers but wants credentials
    STOPPED = "stopped"  # a brake or another server: nothing moves until confirmed


class Event(enum.StrEnum):
    """What changes the mode."""

    REACHED = "reached"  # the volume itself answered a probe or a request
    LOST = "lost"  # no answer in time
    DRAINED = "drained"  # journal empty (or only parked records left) and listings caught up
    LINK_WEAK = "link-weak"  # throughput or delay below the settings
    LINK_GOOD = "link-good"
    CREDENTIALS_REFUSED = "credentials-refused"
    CREDENTIALS_GIVEN = "credentials-given"
    BRAKE = "brake"  # safety: mass deletion, emptied root, wrong server
    CONFIRMED = "confirmed"  # a person looked at what the brake reported
    GO_OFFLINE = "go-offline"  # by hand
    GO_ONLINE = "go-online"  # by hand
    GO_AUTOMATIC = "go-automatic"  # by hand: back to what is observed


_C, _W, _R = Mode.CONNECTED, Mode.WRITE_BEHIND, Mode.REINTEGRATING
_D, _A, _S = Mode.DISCONNECTED, Mode.AUTH_REQUIRED, Mode.STOPPED

_COLUMNS = (_C, _W, _R, _D, _A, _S)
_ROWS: dict[Event, tuple[Mode, Mode, Mode, Mode, Mode, Mode]] = {
    #                          from _C  _W  _R  _D  _A  _S
    Event.REACHED: (_C, _W, _R, _R, _A, _S),
    Event.LOST: (_D, _D, _D, _D, _A, _S),
    Event.DRAINED: (_C, _W, _C, _D, _A, _S),
    Event.LINK_WEAK: (_W, _W, _W, _D, _A, _S),
    Event.LINK_GOOD: (_C, _R, _R, _D, _A, _S),
    Event.CREDENTIALS_REFUSED: (_A, _A, _A, _A, _A, _S),
    Event.CREDENTIALS_GIVEN: (_C, _W, _R, _D, _R, _S),
    Event.BRAKE: (_S, _S, _S, _S, _S, _S),
    Event.CONFIRMED: (_C, _W, _R, _D, _A, _R),
    Event.GO_OFFLINE: (_D, _D, _D, _D, _D, _S),
    Event.GO_ONLINE: (_C, _R, _R, _R, _R, _S),
    Event.GO_AUTOMATIC: (_C, _W, _R, _R, _A, _S),
}

TABLE: dict[tuple[Mode, Event], Mode] = {
    (mode, event): row[column]
    for event, row in _ROWS.items()
    for column, mode in enumerate(_COLUMNS)
}
"""The next mode for each mode and event, where nobody has set the mode by hand."""

BY_HAND_IGNORES: dict[Mode, frozenset[Event]] = {
    Mode.DISCONNECTED: frozenset(
        {
            Event.REACHED,
            Event.LOST,
            Event.DRAINED,
            Event.LINK_WEAK,
            Event.LINK_GOOD,
            Event.CREDENTIALS_REFUSED,
            Event.CREDENTIALS_GIVEN,
        }
    ),
    Mode.CONNECTED: frozenset({Event.LINK_WEAK}),
    Mode.REINTEGRATING: frozenset({Event.LINK_WEAK}),
}
"""What awayfs observes but does not follow while the mode is set by hand."""

_HANDS = {Event.GO_OFFLINE: True, Event.GO_ONLINE: True, Event.GO_AUTOMATIC: False}


@dataclass(frozen=True, slots=True)
class ModeState:
    """The mode, why, since when, and whether a person set it."""

    mode: Mode
    by_hand: bool = False
    cause: str = ""
    since_ns: int = 0


def step(state: ModeState, event: Event, cause: str, now_ns: int) -> ModeState:
    """The state after ``event``; the same object when nothing changes.

    A volume that stays disconnected tells the newest cause.
    ``online`` by hand ends when the link is lost or credentials run out: what is left then is
    what is observed. ``offline`` by hand outlives a brake: after the confirmation the volume
    is offline again.
    """
    if state.by_hand and event in BY_HAND_IGNORES.get(state.mode, ()):
        return state
    mode = TABLE[state.mode, event]
    by_hand = _HANDS.get(event, state.by_hand)
    if state.mode is Mode.STOPPED:
        return _step_stopped(state, event, cause, now_ns)
    if event in (Event.LOST, Event.CREDENTIALS_REFUSED):
        by_hand = False
    if event is Event.BRAKE and state.mode is not Mode.DISCONNECTED:
        by_hand = False
    if event is Event.LOST and mode is state.mode and mode is Mode.DISCONNECTED:
        return state if cause == state.cause else replace(state, cause=cause)
    return _changed(state, mode, by_hand, cause, now_ns)


def _step_stopped(state: ModeState, event: Event, cause: str, now_ns: int) -> ModeState:
    """While stopped, ``by_hand`` remembers that the volume is to be offline afterwards."""
    if event is Event.CONFIRMED:
        mode = Mode.DISCONNECTED if state.by_hand else Mode.REINTEGRATING
        return _changed(state, mode, state.by_hand, cause, now_ns)
    if event in _HANDS:
        return replace(state, by_hand=event is Event.GO_OFFLINE)
    return state


def _changed(state: ModeState, mode: Mode, by_hand: bool, cause: str, now_ns: int) -> ModeState:
    if mode is state.mode and by_hand == state.by_hand:
        return state
    since = state.since_ns if mode is state.mode else now_ns
    return ModeState(mode, by_hand, cause, since)


def asks_server(mode: Mode) -> bool:
    """Whether operations may ask the server in this mode."""
    return mode in (Mode.CONNECTED, Mode.WRITE_BEHIND, Mode.REINTEGRATING)


def replays(mode: Mode) -> bool:
    """Whether the journal is replayed in this mode (paced while write-behind)."""
    return asks_server(mode)
