"""Long work on the event loop, a slice at a time.

What was decided before a pause must be looked at again after it: anything may have happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

SLICE_S = 0.01
"""How long others may have to wait for one piece of work."""


class Slices:
    """One piece of long work: asks ``over`` often, and pauses where it may be interrupted."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_S

    @property
    def over(self) -> bool:
        """Whether it is time to let others have their turn."""
        return time.monotonic() >= self._until

    async def pause(self) -> bool:
        """Let others have their turn if it is time; whether that was so."""
        if not self.over:
            return False
        await asyncio.sleep(0)
        self._until = time.monotonic() + SLICE_S
        return True


async def in_slices(steps: Generator[None, None, T], slices: Slices) -> T:
    """What ``steps`` returns, with pauses wherever it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        await slices.pause()
