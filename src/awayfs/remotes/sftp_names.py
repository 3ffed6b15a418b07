"""Decoding NAME replies in one go: a listing is little else.

asyncssh takes each field of each name from the packet by a call of its own, and keeps it in an
object with forty attributes. Here the fields that every server sends (draft-ietf-secsh-filexfer-02,
sections 5 and 7) are unpacked at once. A reply with others in it is left to asyncssh.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import asyncssh
from asyncssh.constants import FXP_NAME
from asyncssh.packet import SSHPacket
from asyncssh.sftp import SFTPClientHandler

USUAL = (
    asyncssh.FILEXFER_ATTR_SIZE
    | asyncssh.FILEXFER_ATTR_UIDGID
    | asyncssh.FILEXFER_ATTR_PERMISSIONS
    | asyncssh.FILEXFER_ATTR_ACMODTIME
)
_NUMBER = struct.Struct(">I")
_ATTRS = struct.Struct(">IQIIIII")


@dataclass(slots=True)
class UsualAttrs:
    """What is read of the attributes of a name, as ``asyncssh.SFTPAttrs`` has it."""

    size: int | None
    uid: int | None
    gid: int | None
    permissions: int | None
    mtime: float | None


@dataclass(slots=True)
class UsualName:
    """A name with its attributes, as ``asyncssh.SFTPName`` has them."""

    filename: bytes
    attrs: UsualAttrs


def decode_usual(reply: bytes) -> list[UsualName] | None:
    """The names of a NAME reply after its request id; None where it has more, or less, in it."""
    names: list[UsualName] = []
    try:
        (count,), at = _NUMBER.unpack_from(reply), 4
        for _ in range(count):
            (length,) = _NUMBER.unpack_from(reply, at)
            start, at = at + 4, at + 4 + length
            name = reply[start:at]
            (length,) = _NUMBER.unpack_from(reply, at)  # the long name, for people
            at += 4 + length
            flags, size, uid, gid, mode, _, mtime = _ATTRS.unpack_from(reply, at)
            if flags != USUAL:
                return None
            at += _ATTRS.size
            names.append(UsualName(name, UsualAttrs(size, uid, gid, mode & 0xFFFF, mtime)))
    except struct.error:
        return None
    return names if at == len(reply) else None


def decode_at_once(handler: SFTPClientHandler) -> None:
    """Have the NAME replies of a version 3 session decoded here, where that can be."""
    if handler.version == 3:
        handlers: dict[int, Any] = {**handler._packet_handlers, FXP_NAME: _process_name}
        handler._packet_handlers = handlers  # of this session alone


def _process_name(handler: SFTPClientHandler, packet: SSHPacket) -> Any:
    names = decode_usual(packet.get_remaining_payload())
    if names is None:
        return handler._process_name(packet)
    return names, False
