"""What the permission bits of an object allow a caller, as the kernel would say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from msgspec import Struct

READ = 4
WRITE = 2
SEARCH = 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: user, group, and the further groups as far as they are known."""

    uid: int
    gid: int
    groups: Collection[int] = ()


class Rights(Struct, frozen=True):
    """Owner, group and permission bits of an object."""

    uid: int
    gid: int
    mode: int


def allows(rights: Rights, caller: Caller, access: int) -> bool:
    """Whether ``caller`` has ``access`` (READ, WRITE, SEARCH or a sum); root has it always."""
    if caller.uid == 0:
        return True
    if caller.uid == rights.uid:
        bits = rights.mode >> 6
    elif rights.gid == caller.gid or rights.gid in caller.groups:
        bits = rights.mode >> 3
    else:
        bits = rights.mode
    return bits & access == access


def may_change_state(rights: Rights, caller: Caller) -> bool:
    """Whether ``caller`` may change what awayfs keeps of an object: its owner, or a writer."""
    return caller.uid == rights.uid or allows(rights, caller, WRITE)
