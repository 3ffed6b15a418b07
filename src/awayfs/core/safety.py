"""Brakes: signs that what the server shows tells of an accident rather than of changes.

Promise 3: absence needs proof. An unmounted export shows an empty root, a captive portal or a
wrong mount shows another root, a script gone wrong deletes half the tree, a restored backup
shows what was there last week. Each brake is one predicate; when one holds, the volume stops
and asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from awayfs.core.types import Entry, Kind

MASS_DELETION_AT_LEAST = 20
EMPTIED_ROOT_AT_LEAST = 2
WITNESSES = 5
"""So many of the files that changed last, and of the directories, are looked at before a server
is believed.
"""
WITNESSES_AT_LEAST = 3
SECOND_NS = 1_000_000_000
CLOCK_STEP_NS = 60 * SECOND_NS
ZONE_NS = 15 * 60 * SECOND_NS
MOST_ZONES_NS = 26 * 3600 * SECOND_NS
"""Clocks are set back by less than the first; time zones differ by multiples of the second, and
by no more than the third."""


def emptied_root(gone: int, others: int) -> bool:
    """The root held several things and now holds nothing (an export that is not mounted).

    What we have put there ourselves since it was last listed is nothing: ``others`` is what else
    it holds. A root with a single child may well have been emptied on purpose.
    """
    return others == 0 and gone >= EMPTIED_ROOT_AT_LEAST


def root_replaced(known_file_id: bytes | None, seen_file_id: bytes | None) -> bool:
    """The root is another object than before (another file system under the same path)."""
    return known_file_id is not None and seen_file_id is not None and known_file_id != seen_file_id


def mass_deletion(known: int, gone: int) -> bool:
    """More than half of what was known is gone, and that is at least 20 things."""
    return gone >= MASS_DELETION_AT_LEAST and gone * 2 > known


mass_change_of_type = mass_deletion
"""The same measure for things that have become another kind of thing (links that a server began
to follow, placeholders in the place of files)."""


def put_back(witnesses: Sequence[tuple[Entry, Entry]]) -> bool:
    """Whether the server stands where it stood before: restored from a backup or a snapshot.

    A witness is one of the things that changed last as far as we know, with what the server
    shows for it now. No program can set a change time back, so one that went back by more than
    a clock is ever set is proof. A modification time may be set: those of all files have to
    have gone back (a directory's is new when something is put back into it), and not by one and
    the same number of quarters of an hour, as a server's time zone makes it.
    """
    same = [(base, seen) for base, seen in witnesses if _is_same(base, seen)]
    if any(_change_time_went_back(base, seen) for base, seen in same):
        return True
    files = [pair for pair in same if pair[0].kind is not Kind.DIRECTORY]
    back = [base.mtime_ns - seen.mtime_ns for base, seen in files]
    if len(back) < WITNESSES_AT_LEAST or min(back) <= SECOND_NS:
        return False
    return not _is_time_zone(back)


def client_put_back(ours: int, servers: int | None) -> bool:
    """Whether the server has seen more of our sessions than we know of (a restored image)."""
    return servers is not None and servers > ours


def _is_same(base: Entry, seen: Entry) -> bool:
    return base.kind is seen.kind and base.file_id == seen.file_id


def _change_time_went_back(base: Entry, seen: Entry) -> bool:
    if base.ctime_ns is None or seen.ctime_ns is None:
        return False
    return base.ctime_ns - seen.ctime_ns > CLOCK_STEP_NS


def _is_time_zone(back: Sequence[int]) -> bool:
    """All by the same whole number of quarters of an hour, give or take the granularity."""
    shift = round(back[0] / ZONE_NS) * ZONE_NS
    return 0 < shift <= MOST_ZONES_NS and all(abs(one - shift) <= SECOND_NS * 2 for one in back)
