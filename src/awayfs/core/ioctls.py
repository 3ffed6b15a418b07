"""The ioctls on open files and directories: numbers and structs (``docs/ioctl.md``).

Every struct begins with a name of 256 bytes. Empty, the request is about the descriptor's own
object; otherwise the descriptor is a directory's, and it is about an entry of it. All numbers are
in the machine's own byte order.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from msgspec import Struct

TYPE: Final = 0xA9
NAME_SIZE: Final = 256
PATH_SIZE: Final = 3832
_READ, _WRITE = 2, 1

_NAME: Final = struct.Struct(f"={NAME_SIZE}s")
_STATE: Final = struct.Struct(f"={NAME_SIZE}sIIQQQiI24x")
_PIN: Final = struct.Struct(f"={NAME_SIZE}sI4x")
_VARIANTS: Final = struct.Struct(f"={NAME_SIZE}sII")
_VARIANT: Final = struct.Struct("=QqII")
_OPEN: Final = struct.Struct(f"={NAME_SIZE}sII{PATH_SIZE}s")


def _number(nr: int, size: int, direction: int) -> int:
    return direction << 30 | size << 16 | TYPE << 8 | nr


class Variant(enum.IntEnum):
    """Which content of an object."""

    BASE = 0
    LOCAL = 1
    SERVER = 2
    MERGED = 3


STATE: Final = _number(1, _STATE.size, _READ | _WRITE)
PIN: Final = _number(2, _PIN.size, _WRITE)
UNPIN: Final = _number(3, _NAME.size, _WRITE)
FETCH: Final = _number(4, _NAME.size, _WRITE)
VARIANTS: Final = _number(5, _VARIANTS.size + _VARIANT.size * len(Variant), _READ | _WRITE)
OPEN_VARIANT: Final = _number(6, _OPEN.size, _READ | _WRITE)

DEFAULT_PRIORITY: Final = 0xFFFFFFFF
"""As a priority: the one that ``awayfs pin`` gives."""
NOT_PINNED: Final = -1
PIN_INHERITED: Final = -2


class Flag(enum.IntFlag):
    """Bits of ``state.flags``; the names are those of ``user.awayfs.state``."""

    CLEAN = 1
    DIRTY = 2
    PROVISIONAL = 4
    PLACEHOLDER = 8
    PARTIAL = 16
    CONFLICTED = 32


MODES: Final = (
    "connected",
    "write-behind",
    "reintegrating",
    "disconnected",
    "auth-required",
    "stopped",
)
"""``state.mode`` is a place in this list."""


class State(Struct, frozen=True):
    """What STATE answers. ``cached`` counts bytes of content; ``variants`` is bits by Variant."""

    flags: Flag
    mode: str
    node: int
    size: int
    cached: int
    pin: int
    variants: int

    def pack(self) -> bytes:
        """As the caller's struct."""
        numbers = (int(self.flags), MODES.index(self.mode), self.node, self.size, self.cached)
        return _STATE.pack(b"", *numbers, self.pin, self.variants)

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """The opposite of ``pack``."""
        _, flags, mode, *rest = _STATE.unpack(data)
        return cls(Flag(flags), MODES[mode], *rest)


class VariantFacts(Struct, frozen=True):
    """One variant: its size and time, its ``st_mode``, and whether all of it is here."""

    size: int
    mtime_ns: int
    mode: int
    whole: bool


def name_of(data: bytes) -> bytes:
    """The entry that a request is about; ``b""`` for the descriptor's own object."""
    return data[:NAME_SIZE].partition(b"\0")[0]


def pack_name(name: bytes) -> bytes:
    """UNPIN and FETCH. Raises ValueError for a name that is too long."""
    if len(name) >= NAME_SIZE:
        raise ValueError("the name is too long")
    return _NAME.pack(name)


def pack_state(name: bytes) -> bytes:
    """What goes in with STATE."""
    return pack_name(name) + bytes(_STATE.size - NAME_SIZE)


def pack_pin(name: bytes, priority: int) -> bytes:
    """What goes in with PIN."""
    return _PIN.pack(pack_name(name), priority)


def unpack_pin(data: bytes) -> int:
    """The priority asked for."""
    priority: int = _PIN.unpack(data)[1]
    return priority


def pack_variants(name: bytes, known: dict[Variant, VariantFacts]) -> bytes:
    """VARIANTS, in (``known`` empty) and out."""
    present = sum(1 << which for which in known)
    whole = sum(1 << which for which, facts in known.items() if facts.whole)
    parts = [_VARIANTS.pack(name, present, whole)]
    for which in Variant:
        facts = known.get(which)
        values = (facts.size, facts.mtime_ns, facts.mode, 0) if facts else (0, 0, 0, 0)
        parts.append(_VARIANT.pack(*values))
    return b"".join(parts)


def unpack_variants(data: bytes) -> dict[Variant, VariantFacts]:
    """What VARIANTS answered."""
    _, present, whole = _VARIANTS.unpack_from(data)
    found: dict[Variant, VariantFacts] = {}
    for which in Variant:
        size, mtime_ns, mode, _ = _VARIANT.unpack_from(data, _VARIANTS.size + which * _VARIANT.size)
        if present >> which & 1:
            found[which] = VariantFacts(size, mtime_ns, mode, bool(whole >> which & 1))
    return found


def pack_open(name: bytes, variant: int, path: bytes = b"") -> bytes:
    """OPEN_VARIANT, in (``path`` empty) and out. Raises ValueError for a path that is too long."""
    if len(path) >= PATH_SIZE:
        raise ValueError("the path is too long")
    return _OPEN.pack(name, variant, 0, path)


def unpack_open(data: bytes) -> tuple[int, bytes]:
    """The variant's number, and the path below the root of the mount where it can be opened."""
    _, variant, _, path = _OPEN.unpack(data)
    return variant, path.partition(b"\0")[0]
