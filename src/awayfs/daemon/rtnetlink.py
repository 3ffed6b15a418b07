"""What the kernel says of links, addresses and routes: rtnetlink(7), without a library.

``Changes`` tells that something changed, within milliseconds and without saying what: it is cheap
to look. ``look`` asks for the way to an address: the route, and whether its interface is up. The
structures are those of linux/netlink.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator

from awayfs.core.noticing import Way

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""

_NLMSG_ERROR, _RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWROUTE, _RTM_GETROUTE = 2, 16, 18, 24, 26
_NLM_F_REQUEST = 1
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _IFLA_IFNAME = 1, 4, 7, 3
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_LINK = struct.Struct("=BBHiII")  # ifinfomsg
_ANSWER_WITHIN_S = 0.5
_READ = 1 << 16


class Changes:
    """Calls ``changed`` on the event loop after each burst of news. Raises ``OSError``."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._socket = _open(_GROUPS)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        try:
            while self._socket.recv(_READ):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more news than fit: that is news as well
                self.close()
                return
        self._changed()


def look(server: str, own: str = "") -> Way:
    """The way to ``server``, an address; ``own`` is the address that a session is sent from.

    Raises ``OSError`` where the kernel does not answer. Takes well under a millisecond.
    """
    with _open(0) as asked:
        asked.settimeout(_ANSWER_WITHIN_S)
        try:
            index, source = _route(asked, server)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            return Way(blocked=f"no route to {server} ({error.strerror})", ours=_is_ours(own))
        name, running = _link(asked, index)
    blocked = "" if running else f"{name} has no connection"
    return Way(blocked, name, source, _is_ours(own))


def _open(groups: int) -> socket.socket:
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


def _route(asked: socket.socket, server: str) -> tuple[int, str]:
    """Interface and source address; the error that sending would end with is raised."""
    address = _plain(server)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _attribute(_RTA_DST, address.packed)
    scope = server.partition("%")[2]
    if scope:
        body += _attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex(scope)))
    answer = _ask(asked, _RTM_GETROUTE, body, _RTM_NEWROUTE)
    found = dict(_attributes(answer[_ROUTE.size :]))
    source = found.get(_RTA_PREFSRC, b"")
    index = int(struct.unpack("=I", found.get(_RTA_OIF, bytes(4)))[0])
    return index, str(ipaddress.ip_address(source)) if source else ""


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone; an IPv4 one that is written as IPv6 is an IPv4 one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _link(asked: socket.socket, index: int) -> tuple[str, bool]:
    """The name of an interface, and whether it can carry packets."""
    answer = _ask(asked, _RTM_GETLINK, _LINK.pack(0, 0, 0, index, 0, 0), _RTM_NEWLINK)
    flags = _LINK.unpack_from(answer)[4]
    name = dict(_attributes(answer[_LINK.size :])).get(_IFLA_IFNAME, b"").rstrip(b"\0")
    up = _IFF_UP | _IFF_RUNNING
    return name.decode(errors="backslashreplace"), flags & up == up


def _ask(asked: socket.socket, kind: int, body: bytes, wanted: int) -> bytes:
    """The body of the answer to a request."""
    asked.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, 1, 0) + body)
    answer = asked.recv(_READ)
    length, got, _, _, _ = _HEADER.unpack_from(answer)
    if got == _NLMSG_ERROR:
        code = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
        raise OSError(code, os.strerror(code))
    if got != wanted:
        raise OSError(errno.EPROTO, f"rtnetlink answered {got} to {kind}")
    return answer[_HEADER.size : length]


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[place + _ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3


def _is_ours(own: str) -> bool:
    """Whether an address belongs to this machine still; True where none is given."""
    if not own:
        return True
    scope = own.partition("%")[2]
    name = str(_plain(own))
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as tried:
        try:
            place = (name, 0, 0, socket.if_nametoindex(scope)) if scope else (name, 0)
            tried.bind(place)
        except OSError as error:
            return error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO)
    return True
