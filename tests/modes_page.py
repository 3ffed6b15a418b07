"""``docs/MODES.md``, made of the table in ``core/modes.py``: ``python -m tests.modes_page``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from awayfs.core.modes import BY_HAND_IGNORES, HANDS, MEANING, TABLE, Event, Mode

PAGE = Path(__file__).parents[1] / "docs" / "MODES.md"

HEAD = """# Modes

The mode of a volume says what is done with changes, and with what is not here. This page is made
of the table in `core/modes.py` by `python -m tests.modes_page`; a test compares the two.

`awayfs status` shows the mode with its cause, and since when. `status --json` has the history,
which outlives the daemon.
"""

HAND = """## By hand

`offline`, `online` and `auto` set the mode, or take that back. What was set by hand wins over what
is observed; while it holds, these events change nothing:

"""

TAIL = """
`online` by hand ends when the link is lost or credentials are refused: nobody can command a dead
link to work. `offline` by hand lasts until `auto` or `online`, or until the time given with `--for`
or `--until`, also over a restart, and over a stop.

There are three scopes: everything, a server, one volume (`core/orders.py`). A volume is offline as
long as one order of the three holds. `online` and `auto` take back the order of their own scope
alone.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_modes(), *_diagram(), *_table(), *_by_hand()]) + TAIL


def _modes() -> Iterable[str]:
    yield "| Mode | Meaning |"
    yield "|---|---|"
    yield from (f"| {mode} | {MEANING[mode]} |" for mode in Mode)
    yield ""
    yield "| Event | Meaning |"
    yield "|---|---|"
    yield from (f"| {event} | {MEANING[event]} |" for event in Event)
    yield ""


def _diagram() -> Iterable[str]:
    yield "## The diagram"
    yield ""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {_name(Mode.DISCONNECTED)}"
    for before in Mode:
        for after in Mode:
            events = [event for event in Event if TABLE[before, event] is after]
            if events and before is not after:
                yield f"    {_name(before)} --> {_name(after)}: {', '.join(events)}"
    yield "```"
    yield ""


def _name(mode: Mode) -> str:
    return mode.replace("-", "_")


def _table() -> Iterable[str]:
    yield "## The table"
    yield ""
    yield "The next mode; empty: it stays."
    yield ""
    yield "| Event | " + " | ".join(f"from {mode}" for mode in Mode) + " |"
    yield "|---|" + "---|" * len(Mode)
    for event in Event:
        cells = ["" if TABLE[mode, event] is mode else str(TABLE[mode, event]) for mode in Mode]
        yield f"| {event} | " + " | ".join(cells) + " |"
    yield ""


def _by_hand() -> Iterable[str]:
    yield HAND.rstrip("\n")
    yield ""
    for mode, events in BY_HAND_IGNORES.items():
        named = ", ".join(event for event in Event if event in events)
        yield f"* {mode}: {named}"
    said = ", ".join(f"{event} ({MEANING[event]})" for event in HANDS)
    yield ""
    yield f"What a person says: {said}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
