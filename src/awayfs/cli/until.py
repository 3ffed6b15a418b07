"""``--for 1h30m`` and ``--until 18:00``: until when something is to be so."""

from __future__ import annotations

import datetime
import re

import click

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+[dhms])+")
_LONGEST_S = 366 * 86400


def moment(duration: str | None, until: str | None, now: datetime.datetime) -> int | None:
    """The moment in nanoseconds, or None where neither was given. ``now`` knows its time zone.

    Raises ``click.UsageError`` for both at once, for what is not understood, and for the past.
    """
    if duration is not None and until is not None:
        raise click.UsageError("--for and --until contradict each other; give one of them")
    if duration is not None:
        return int(now.timestamp() * 10**9) + seconds(duration) * 10**9
    return None if until is None else int(point(until, now).timestamp() * 10**9)


def seconds(duration: str) -> int:
    """``90s``, ``30m``, ``1h30m``, ``2d`` in seconds."""
    text = duration.strip().lower().replace(" ", "")
    if not _DURATION.fullmatch(text):
        raise click.UsageError(f"--for {duration}: write a time such as 30m, 1h30m or 2d")
    total = sum(int(word[:-1]) * _UNITS[word[-1]] for word in re.findall(r"\d+[dhms]", text))
    if not 0 < total <= _LONGEST_S:
        raise click.UsageError(f"--for {duration}: give more than nothing and at most a year")
    return total


def point(until: str, now: datetime.datetime) -> datetime.datetime:
    """A time of today, or a date with a time, in the time zone of this machine."""
    text = until.strip()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            time = datetime.time.fromisoformat(text.zfill(5) if len(text) < 6 else text.zfill(8))
            when = datetime.datetime.combine(now.date(), time).astimezone(now.tzinfo)
        else:
            when = datetime.datetime.fromisoformat(text).astimezone(now.tzinfo)
        far = when - now > datetime.timedelta(seconds=_LONGEST_S)
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"--until {until}: write a time such as 18:00 or '2026-12-24 18:00'"
        ) from None
    if when <= now:
        tomorrow = (now + datetime.timedelta(days=1)).strftime("%Y-%m-%d")
        raise click.UsageError(
            f"--until {until}: that is over; for tomorrow write '{tomorrow} {when:%H:%M}'"
        )
    if far:
        raise click.UsageError(f"--until {until}: give a time within a year")
    return when
