"""The mode of a volume: one state table.

What a person says (``awayfs offline``, ``online``, ``auto``) wins over what awayfs observes,
with two limits: nobody can command a dead link to work, and a safety stop holds until it is
confirmed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Mode(enum.StrEnum):
    """What a volume does with changes and with what it does not have (``MEANING``)."""

    CONNECTED = "connected"
    WRITE_BEHIND = "write-behind"
    REINTEGRATING = "reintegrating"
    DISCONNECTED = "disconnected"
    AUTH_REQUIRED = "auth-required"
    STOPPED = "stopped"


class Event(enum.StrEnum):
    """What changes the mode (``MEANING``)."""

    REACHED = "reached"
    LOST = "lost"
    DRAINED = "drained"
    LINK_WEAK = "link-weak"
    LINK_GOOD = "link-good"
    CREDENTIALS_REFUSED = "credentials-refused"
    CREDENTIALS_GIVEN = "credentials-given"
    BRAKE = "brake"
    CONFIRMED = "confirmed"
    GO_OFFLINE = "go-offline"
    GO_ONLINE = "go-online"
    GO_AUTOMATIC = "go-automatic"


MEANING: dict[Mode | Event, str] = {
    Mode.CONNECTED: "the server answers; the journal is empty, drains at once, or waits to be sent",
    Mode.WRITE_BEHIND: "the server answers over a weak link",
    Mode.REINTEGRATING: "the server is back; journal and listings are caught up",
    Mode.DISCONNECTED: "the server is not asked: it does not answer, or a person wants it so",
    Mode.AUTH_REQUIRED: "the server answers, and accepts none of our credentials",
    Mode.STOPPED: "a brake, or another server: nothing moves until that is cleared up",
    Event.REACHED: "the volume itself answered",
    Event.LOST: "no answer in time, or no way to the server",
    Event.DRAINED: "the journal is empty, apart from what is parked or waits to be asked for",
    Event.LINK_WEAK: "the link is slow, thin or metered",
    Event.LINK_GOOD: "it is none of these any more",
    Event.CREDENTIALS_REFUSED: "the server accepts no key that we have",
    Event.CREDENTIALS_GIVEN: "it accepts one",
    Event.BRAKE: "an accident on the server, or another server",
    Event.CONFIRMED: "a person looked at it, or the right server is back",
    Event.GO_OFFLINE: "`awayfs offline`",
    Event.GO_ONLINE: "`awayfs online`",
    Event.GO_AUTOMATIC: "`awayfs auto`, or the time of an `offline --for` is over",
}
"""Each mode and event in a few words; ``docs/MODES.md`` is made of them and the table."""

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

HANDS = {Event.GO_OFFLINE: True, Event.GO_ONLINE: True, Event.GO_AUTOMATIC: False}
"""What a person says, and whether the mode is set by hand after it."""


@dataclass(frozen=True, slots=True)
class ModeState:
    """The mode, why, since when, and whether a person set it.

    ``until_ns``: what was set by hand ends then by itself; None: it does not.
    """

    mode: Mode
    by_hand: bool = False
    cause: str = ""
    since_ns: int = 0
    until_ns: int | None = None


def step(
    state: ModeState, event: Event, cause: str, now_ns: int, until_ns: int | None = None
) -> ModeState:
    """The state after ``event``; the same object when nothing changes.

    ``until_ns`` goes with ``GO_OFFLINE``. A volume that stays disconnected tells the newest cause.
    ``online`` by hand ends when the link is lost or credentials run out: what is left then is
    what is observed. ``offline`` by hand outlives a brake: after the confirmation the volume
    is offline again.
    """
    if state.by_hand and event in BY_HAND_IGNORES.get(state.mode, ()):
        return state
    mode = TABLE[state.mode, event]
    by_hand = HANDS.get(event, state.by_hand)
    if state.mode is Mode.STOPPED:
        return _step_stopped(state, event, cause, now_ns, until_ns)
    if event in (Event.LOST, Event.CREDENTIALS_REFUSED):
        by_hand = False
    if event is Event.BRAKE and state.mode is not Mode.DISCONNECTED:
        by_hand = False
    until = until_ns if event in HANDS else state.until_ns
    after = _changed(state, mode, by_hand, cause, now_ns, until)
    if after is state and event in (Event.LOST, Event.GO_OFFLINE) and mode is Mode.DISCONNECTED:
        return state if cause == state.cause else replace(state, cause=cause)
    return after


def _step_stopped(
    state: ModeState, event: Event, cause: str, now_ns: int, until_ns: int | None
) -> ModeState:
    """While stopped, ``by_hand`` remembers that the volume is to be offline afterwards."""
    if event is Event.CONFIRMED:
        mode = Mode.DISCONNECTED if state.by_hand else Mode.REINTEGRATING
        return _changed(state, mode, state.by_hand, cause, now_ns, state.until_ns)
    if event in HANDS:
        return replace(state, by_hand=event is Event.GO_OFFLINE, until_ns=until_ns)
    return state


def _changed(
    state: ModeState, mode: Mode, by_hand: bool, cause: str, now_ns: int, until_ns: int | None
) -> ModeState:
    until = until_ns if by_hand else None
    if mode is state.mode and by_hand == state.by_hand and until == state.until_ns:
        return state
    since = state.since_ns if mode is state.mode else now_ns
    return ModeState(mode, by_hand, cause, since, until)


def asks_server(mode: Mode) -> bool:
    """Whether operations may ask the server in this mode."""
    return mode in (Mode.CONNECTED, Mode.WRITE_BEHIND, Mode.REINTEGRATING)


def replays(mode: Mode) -> bool:
    """Whether the journal is replayed in this mode (paced while write-behind)."""
    return asks_server(mode)
