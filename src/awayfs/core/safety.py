"""Brakes: signs that a listing tells of an accident rather than of deletions.

Promise 3: absence needs proof. An unmounted export shows an empty root, a captive portal or a
wrong mount shows another root, a script gone wrong deletes half the tree. Each brake is one
predicate; when one holds, the volume stops and asks.
"""

from __future__ import annotations

MASS_DELETION_AT_LEAST = 20
EMPTIED_ROOT_AT_LEAST = 2


def emptied_root(known_children: int, listed: int) -> bool:
    """The root held several things and now holds nothing (an export that is not mounted).

    A root with a single child may well have been emptied on purpose.
    """
    return listed == 0 and known_children >= EMPTIED_ROOT_AT_LEAST


def root_replaced(known_file_id: bytes | None, seen_file_id: bytes | None) -> bool:
    """The root is another object than before (another file system under the same path)."""
    return known_file_id is not None and seen_file_id is not None and known_file_id != seen_file_id


def mass_deletion(known: int, gone: int) -> bool:
    """More than half of what was known is gone, and that is at least 20 things."""
    return gone >= MASS_DELETION_AT_LEAST and gone * 2 > known
