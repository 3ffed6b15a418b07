"""Where the sending of the journal stands, for those who wait for it or show it."""

from __future__ import annotations

from msgspec import Struct

from awayfs.volume.ageing import NONE_RESTS, Resting


class Progress(Struct, frozen=True):
    """Where a drain stands; ``stuck`` when what is left cannot go out by waiting a moment: it needs
    a decision, or, with ``full``, room on the server.

    ``mapped``: what would tell of writes through a mapping, of which there need not be any; it
    goes out when the file is closed. 0 while something is on its way. ``held``: what waits until it
    is asked for, or until the mount is idle (``core.sending``). ``resting``: what is too young yet
    for a weak link, and goes by itself.
    """

    records: int
    bytes: int
    parked: int
    mapped: int
    stuck: bool
    full: bool = False
    held: int = 0
    resting: Resting = NONE_RESTS

    @property
    def not_now(self) -> int:
        """How many records are not to go out yet: each of the two is the journal's end."""
        return max(self.held, self.resting.records)

    @property
    def over(self) -> bool:
        """Whether all is sent that was known to be changed, and may go."""
        return self.records <= self.mapped + self.not_now
