"""Where a node can stand: in a free place that is not inside itself.

What both sides moved can contradict each other: a directory comes back, or is to go where the
server has it, and the place for that is inside it by now. A ring of directories would hide all that
is in it. So a place counts only if the way up from it does not meet the node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import count

from awayfs.core.namespace import Slot
from awayfs.core.types import ROOT, NodeId

LONGEST = 200
"""Bytes of a name that are kept where a number is added to it."""


def place_for(
    node: NodeId,
    name: bytes,
    wanted: Iterable[Slot],
    above: Callable[[NodeId], Collection[NodeId]],
    is_free: Callable[[Slot], bool],
) -> Slot:
    """The first of the ``wanted`` places that is possible, else one in the root.

    ``above`` gives a directory with all that are above it, ``is_free`` tells whether a place can be
    had, but for that. In the root it has its own name, or that with a number: ``NAME.NODE``.
    """
    for slot in wanted:
        if is_free(slot) and node not in above(slot[0]):
            return slot
    named = (ROOT, name)
    numbers = count(2)
    while not is_free(named):
        number, again = next(numbers), b".%d" % node
        named = (ROOT, name[:LONGEST] + again + (b".%d" % number if number > 2 else b""))
    return named
