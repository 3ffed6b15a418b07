"""Connecting: whom we trust, which key we show, how soon silence counts as gone.

What OpenSSH's client reads is read here too, as far as asyncssh supports it: ``~/.ssh/config``
(Host, HostName, User, Port, IdentityFile, ProxyJump, ...), the agent, known_hosts. Host keys
are always verified, whatever ``StrictHostKeyChecking`` or ``UserKnownHostsFile none`` say.
A password or a passphrase comes with the options, if there is one; nobody is asked from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import asyncssh

from awayfs.core.errors import (
    AuthenticationRequired,
    NotFound,
    PassphraseRequired,
    Refused,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.secrets import Secrets
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_errors import Unsupported, from_connecting, from_exception
from awayfs.remotes.sftp_expiry import says_expired
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_small import SmallFiles
from awayfs.remotes.sftp_wire import Wire
from awayfs.remotes.sftp_witness import Witness

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
LOGIN_TIMEOUT_S = 10.0
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 2
"""Gone at the third second of silence: two keepalives unanswered."""

STALL_TIMEOUT_S = 30.0
"""The SSH server answers but its SFTP process does not (a hung disk, a fifo): give up."""

FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Tried first: with AES instructions twice as fast as asyncssh's first choice, ChaCha20."""

HANDLES = 64
MOST_HANDLES = 256
"""Files open at once in a session, where the server does not tell what it allows, and at most."""

PREFERRED = (
    *("gssapi-keyex", "gssapi-with-mic", "hostbased", "publickey"),
    *("keyboard-interactive", "password"),
)
"""What costs nothing to try comes first: a password is shown only where all else fails."""
READ_ONLY_FLAG = 1
"""``f_flag`` of statvfs@openssh.com: SSH2_FXE_STATVFS_ST_RDONLY."""


class Location(Protocol):
    """The part of ``opening.VolumeUrl`` that is read here."""

    @property
    def user(self) -> str | None: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Extensions:
    """What this server does beyond the draft; found by asking, not by what it advertises."""

    rename_over: bool
    hard_link: bool
    lsetstat: bool
    statvfs: bool
    read_only: bool


@dataclass
class Session:
    """One connection: two channels or more, so that a ``stat`` never waits behind an fsync.

    OpenSSH serves each channel with a process that does one request after the other.
    """

    connection: asyncssh.SSHClientConnection
    quick: Channel
    bulk: Channel
    root: bytes
    fingerprint: str
    extensions: Extensions
    clock: ServerClock
    watch: asyncio.Task[None]
    witness: Witness
    channels: list[Channel]
    """All that are open, of which ``one_more_channel`` makes more."""

    small: SmallFiles | None = None
    has_room: bool = True
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def small_files(self, paths: Paths) -> SmallFiles | None:
        """The session for many small files, opened when it is first needed.

        None where the server lets us have no further one (``MaxSessions``).
        """
        async with self.starting:
            if self.has_room and (self.small is None or self.small.over):
                small = SmallFiles(self.bulk, paths)
                try:
                    await small.start(self.connection)
                except asyncssh.ChannelOpenError as error:
                    if self.connection.is_closed():
                        raise Unreachable(f"the connection was lost ({error.reason})") from error
                    self.has_room = False
                    return None
                self.small = small
            return self.small

    async def one_more_channel(self) -> Channel | None:
        """One channel more, None where the server lets us have no further one."""
        if not self.has_room:
            return None
        wire = await _one_more(self.connection)
        if wire is None:
            self.has_room = False
            return None
        wire.limits = self.bulk.wire.limits
        channel = Channel(wire, self.root, self.bulk.handles)
        self.channels.append(channel)
        return channel

    @property
    def addresses(self) -> tuple[str, str] | None:
        """Ours and the server's; None where a proxy or another host stands between."""
        connected = self.connection.get_extra_info("socket")
        if connected is None:
            return None
        return connected.getsockname()[0], connected.getpeername()[0]

    @property
    def user(self) -> str:
        """Who we are on the server: of the URL, of the SSH configuration, or as we are here."""
        return str(self.connection.get_extra_info("username") or "")

    async def close(self) -> None:
        """Drop it all, within a second."""
        self.witness.waits_for_end = False
        self.watch.cancel()
        if not any(channel.wire.waits for channel in self.channels):
            _linger(self.connection, on=False)  # the server hears of the end like of any other
        for channel in self.channels:
            await channel.end()
        self.connection.close()
        try:
            await asyncio.wait_for(self.connection.wait_closed(), 1.0)
        except (TimeoutError, OSError, asyncssh.Error):
            self.connection.abort()


def where(url: Location) -> str:
    """``host`` or ``host:port`` for texts."""
    return f"{url.host}:{url.port}" if url.port else url.host


async def open_session(
    url: Location,
    options: Mapping[str, str],
    on_login: Callable[[asyncssh.SSHClientConnection], None],
    look: Callable[[Channel, ServerClock], Awaitable[T]],
) -> tuple[Session, T]:
    """Connect, log in, start SFTP, find the root, and look. Raises the port's errors.

    ``on_login`` may begin something more, once SFTP has been asked for: that needs a round trip or
    two. ``look`` asks along with all other first questions, and again where the root has another
    path than it was named by.
    """
    limit = float(options.get("connect_timeout", CONNECT_TIMEOUT_S))
    arguments, known_hosts = _arguments(url, options, limit)
    witness = Witness(Secrets(options.get("password", "")), arguments["username"])
    try:
        # login_timeout does not bound a TCP connect into a black hole, connect_timeout does;
        # name resolution, proxies and the jump hosts are bounded by nothing but this wait.
        connection = await asyncio.wait_for(
            asyncssh.connect(
                url.host, client_factory=lambda: witness, known_hosts=known_hosts, **arguments
            ),
            limit + LOGIN_TIMEOUT_S,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _wrong_key(witness, known_hosts, where(url), error) from error
    except asyncssh.PermissionDenied as error:
        raise witness.denied(where(url), error.reason) from error
    except Exception as error:
        if witness.met_no_ssh and not isinstance(error, TimeoutError):
            raise Unreachable(
                f"what answers at {where(url)} does not speak SSH: "
                "a captive portal, or another machine?"
            ) from error
        raise from_connecting(error, where(url)) from error
    _linger(connection, on=True)
    try:
        starting = _start(connection, url, options, witness, on_login, look)
        return await asyncio.wait_for(starting, LOGIN_TIMEOUT_S)
    except asyncssh.ChannelOpenError as error:
        connection.abort()
        raise from_connecting(error, where(url)) from error
    except Exception as error:
        connection.abort()
        raise from_exception(error) from error
    except BaseException:
        connection.abort()
        raise


def _linger(connection: asyncssh.SSHClientConnection, *, on: bool) -> None:
    """``on``: what was not sent when the connection ends, or this process is killed, never is.

    Else the kernel goes on trying for minutes, and when the network is back, the server moves a
    file aside in the name of an operation that another session has done again by then (tcp(7),
    socket(7): SO_LINGER of no seconds).
    """
    if (own := connection.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(on), 0))


def _arguments(
    url: Location, options: Mapping[str, str], limit: float
) -> tuple[dict[str, Any], Any]:
    """Arguments of ``asyncssh.connect``, and what vouches for host keys."""
    arguments: dict[str, Any] = {
        "connect_timeout": limit,
        "login_timeout": LOGIN_TIMEOUT_S,
        "keepalive_interval": KEEPALIVE_INTERVAL_S,
        "keepalive_count_max": KEEPALIVE_COUNT,
        "preferred_auth": PREFERRED,
        "utf8_decode_errors": "backslashreplace",
        "x11_forwarding": False,
        "agent_forwarding": False,
    }
    if url.user:
        arguments["username"] = url.user
    if url.port:
        arguments["port"] = url.port
    if "ssh_config" in options:
        arguments["config"] = [options["ssh_config"]]
    if "identity" in options:
        arguments["client_keys"] = [options["identity"]]
    if "passphrase" in options:
        arguments["passphrase"] = options["passphrase"]
    if "host_key_alias" in options:
        arguments["host_key_alias"] = options["host_key_alias"]
    try:
        resolved = asyncssh.SSHClientConnectionOptions(host=url.host, **arguments)
    except asyncssh.ConfigParseError as error:
        raise Refused(errno.EINVAL, f"the SSH configuration cannot be read: {error}") from error
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise _no_key(url, error) from error
    arguments["username"] = resolved.username
    if not resolved.config.get("Ciphers"):
        arguments["encryption_algs"] = FAST_CIPHERS
    return arguments, _known_hosts(options.get("known_hosts"), resolved.known_hosts)


def _no_key(url: Location, error: Exception) -> AuthenticationRequired:
    """asyncssh has one error for a key without its passphrase, and for what is no key at all."""
    text = f"the key for {where(url)} cannot be used ({error}): add it to the agent with ssh-add"
    if isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in str(error).lower():
        return PassphraseRequired(
            f"{text}, or give its passphrase with 'awayfs login --passphrase'"
        )
    return AuthenticationRequired(text)


def _known_hosts(chosen: str | None, configured: object) -> Any:
    """What vouches for host keys, never None: asyncssh takes None for "accept any".

    ``configured`` is what asyncssh made of the user's configuration: a list of files, or None
    for ``UserKnownHostsFile none``.
    """
    if chosen is not None:
        files = [chosen]
    elif isinstance(configured, (list, tuple)) and configured:
        files = [str(name) for name in configured]
    else:
        files = ["~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"]
    readable = [name for name in map(os.path.expanduser, files) if os.access(name, os.R_OK)]
    return readable or ([], [], [])


def _wrong_key(
    witness: Witness, known_hosts: Any, place: str, error: asyncssh.HostKeyNotVerifiable
) -> WrongServer:
    if witness.refused is None:
        return WrongServer(f"{place}: {error.reason}")
    host, addr, port, key = witness.refused
    offered = f"{key.get_algorithm()} {key.get_fingerprint()}"
    known = asyncssh.match_known_hosts(known_hosts, host, addr, port)
    name = host if port == 22 else f"[{host}]:{port}"
    connect = f"ssh -p {port} {host}"
    if known[0] or known[2]:
        return WrongServer(
            f"{place} shows another host key than known_hosts has ({offered}): somebody may be "
            f"listening in; if the key was changed on purpose, run `ssh-keygen -R '{name}'` "
            f"and connect once with `{connect}`"
        )
    return WrongServer(
        f"{place} is not in known_hosts and shows {offered}: compare the fingerprint and "
        f"connect once with `{connect}` (or `ssh-keyscan -p {port} {host}`)"
    )


async def _start(
    connection: asyncssh.SSHClientConnection,
    url: Location,
    options: Mapping[str, str],
    witness: Witness,
    on_login: Callable[[asyncssh.SSHClientConnection], None],
    look: Callable[[Channel, ServerClock], Awaitable[T]],
) -> tuple[Session, T]:
    wire, clock = Wire(), ServerClock()
    # The first is opened first: a server that allows but one (MaxSessions) refuses the other.
    try:
        opening = asyncio.gather(wire.start(connection), _one_more(connection))
        on_login(connection)
        _, other = await opening
    except Unreachable as error:
        if not connection.is_closed() and await says_expired(connection):
            raise witness.expired(where(url)) from error
        raise
    as_named = Channel(wire, url.path or b".", 1)  # a relative path starts at the home directory
    seen, root, extensions, _ = await asyncio.gather(
        _attempt(look(as_named, clock)),
        _find_root(as_named, url.path),
        _probe_extensions(as_named),
        wire.learn_limits(),
    )
    handles = max(1, min(MOST_HANDLES, (wire.limits.handles or 2 * HANDLES) // 2))
    quick = bulk = Channel(wire, root, handles)
    if other is not None:
        other.limits = wire.limits
        bulk = Channel(other, root, handles)
    if root != url.path:
        seen = await _attempt(look(quick, clock))
    if isinstance(seen, Exception):
        raise seen
    key = connection.get_server_host_key()
    stall = float(options.get("stall_timeout", STALL_TIMEOUT_S))
    channels = [quick] if bulk is quick else [quick, bulk]
    witness.waits_for_end = True
    session = Session(
        connection=connection,
        quick=quick,
        bulk=bulk,
        root=root,
        fingerprint=key.get_fingerprint() if key is not None else "",
        extensions=extensions,
        clock=clock,
        watch=asyncio.ensure_future(_watch(connection, channels, stall)),
        witness=witness,
        channels=channels,
    )
    return session, seen


async def _attempt(work: Awaitable[T]) -> T | Exception:
    """What it gives, or what it raises."""
    try:
        return await work
    except Exception as error:
        return error


async def _one_more(connection: asyncssh.SSHClientConnection) -> Wire | None:
    """A further SFTP session, None where the server lets us have none."""
    wire = Wire()
    try:
        await wire.start(connection)
    except (asyncssh.Error, OSError, RemoteError):
        return None
    return wire


async def _find_root(channel: Channel, path: bytes) -> bytes:
    """The absolute path of the volume."""
    try:
        return await channel.realpath(b"")
    except NotFound as error:
        place = path.decode(errors="backslashreplace")
        # not NotFound, which proves absence: the export may just not be mounted
        raise Unreachable(f"{place} is not there: is it mounted, is it the right path?") from error


async def _probe_extensions(channel: Channel) -> Extensions:
    """Ask for changes of a name that is not there: "no such file" means "could be done".

    A read-only server (``sftp-server -R``) answers "permission denied" before it looks.
    """
    nowhere = b".awayfs-0.nowhere"
    times = packets.Attributes(atime=0, mtime=0)
    asked = (
        channel.rename_exclusive(nowhere, nowhere + b"2"),
        channel.rename_over(nowhere, nowhere + b"2"),
        channel.hard_link(nowhere, nowhere + b"2"),
        channel.setstat(nowhere, times, follow=False),
        channel.statvfs(b""),
    )
    rename, over, link, attributes, space = [await _answer(request) for request in asked]
    read_only = isinstance(rename, Refused) and rename.errno == errno.EACCES
    if isinstance(space, packets.FileSystem):
        read_only = read_only or bool(space.flags & READ_ONLY_FLAG)
    return Extensions(
        rename_over=isinstance(over, NotFound),
        hard_link=isinstance(link, NotFound),
        lsetstat=isinstance(attributes, NotFound),
        statvfs=not isinstance(space, Unsupported),
        read_only=read_only,
    )


async def _answer(request: Any) -> object:
    """A request's value, or the server's refusal as a value; a lost connection still raises."""
    try:
        return await request
    except (NotFound, Refused) as answer:
        return answer


async def _watch(
    connection: asyncssh.SSHClientConnection, channels: Sequence[Channel], stall_s: float
) -> None:
    """End the connection when requests wait and no reply comes (keepalives see only sshd)."""
    while True:
        await asyncio.sleep(min(1.0, stall_s / 4))
        if any(channel.silent_for() > stall_s for channel in channels):
            connection.abort()
            return
