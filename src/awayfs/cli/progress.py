"""A bar for long work, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from awayfs.cli import show

_EVERY = 0.1


class Bar:
    """Call it with each progress event; it draws nothing unless a person watches."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._wanted = sys.stderr.isatty()
        self._most = 0
        self._drawn = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        """Draw an event: ``done`` of ``total``, or ``pending`` going down."""
        now = time.monotonic()
        if not self._wanted or now - self._drawn < _EVERY:
            return
        self._drawn = now
        if self._bar is None:
            from tqdm import tqdm  # slow to import; most commands show no bar

            self._bar = tqdm(desc=self._title, unit="", file=sys.stderr, leave=False)
        done, total = self._position(event)
        self._bar.total = total
        self._bar.n = done
        notes = [show.size(event["bytes"])] if "bytes" in event else []
        if event.get("path"):
            notes.append(show.printable(event["path"])[-40:])
        self._bar.set_postfix_str(" ".join(notes), refresh=False)
        self._bar.refresh()

    def _position(self, event: dict[str, Any]) -> tuple[int, int | None]:
        if "pending" in event:
            self._most = max(self._most, event["pending"])
            return self._most - event["pending"], self._most
        return event.get("done", 0), event.get("total")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
