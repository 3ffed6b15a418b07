"""One mount's parts in one place: remote, link, volume, kernel session, control socket."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
import socket
import time
import zlib
from collections.abc import Mapping

from awayfs.control import paths
from awayfs.control.config import ConfigFile, config_file
from awayfs.control.event_socket import EventSocket
from awayfs.control.handshake import StartRequest
from awayfs.control.messages import text_of
from awayfs.control.options import MountOptions
from awayfs.control.server import ControlServer
from awayfs.control.urls import LOCAL, mounted_from, scheme_of, server_of
from awayfs.core.errors import RemoteError, Unreachable
from awayfs.core.modes import Mode
from awayfs.daemon.account import Account
from awayfs.daemon.api import Api
from awayfs.daemon.api_login import LoginApi
from awayfs.daemon.asking import Asking
from awayfs.daemon.login_watch import LoginWatch
from awayfs.daemon.neighbours import Neighbours
from awayfs.daemon.proofs import Proofs
from awayfs.daemon.standing_orders import StandingOrders
from awayfs.daemon.surroundings import Surroundings
from awayfs.daemon.wallet import UserWallet
from awayfs.fuse import mount as mounting
from awayfs.fuse.bridge import Bridge
from awayfs.fuse.bridge_shared import MountedKernel, Shared
from awayfs.fuse.negotiate import SessionOptions
from awayfs.fuse.notify import Notifier
from awayfs.fuse.passthrough import probe
from awayfs.fuse.session import Session
from awayfs.remotes.opening import open_remote
from awayfs.store.store import Store
from awayfs.volume import mode_history
from awayfs.volume.context import Context, VolumeOptions
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume

log = logging.getLogger(__name__)

FIRST_CONTACT_S = 10.0
KNOWN_CONTACT_S = 2.5
STALL_S = 1.8
"""Without progress for so long, a call to the server has failed: under the promised 2 s."""
CLIENT_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Service:
    """Everything that lives as long as the mount does."""

    def __init__(self, request: StartRequest, store: Store) -> None:
        self._request = request
        self._store = store
        recover(store, time.time_ns())
        options = request.options
        client = self._client = _client_id(store)
        self._remote = open_remote(request.url, {**_remote_options(options), "client": client})
        self._wallet = UserWallet(request.url, options.credentials, request.secrets)
        if scheme_of(request.url) != "dir":
            self._remote.wallet = self._wallet
        self._link = Link(
            self._remote,
            time.time_ns,
            mode_history.at_start(store.facts, time.time_ns()),
            mode_history.load(store.facts),
        )
        place = text_of(request.mountpoint)
        asking = Asking(request.url, place, self._wallet, self._link.connect)
        self._login_watch = LoginWatch(self._link, _proofs(options), asking)
        if scheme_of(request.url) != "dir":
            self._link.on_attempt.append(self._login_watch.attempt_begins)
        self._link.give_up = self._remote.abandon
        self._link.leave = self._remote.rest
        self._link.last_sign = lambda: self._remote.last_sign
        self._remote.on_lost = self._connection_lost
        self._surroundings = Surroundings(self._link, lambda: mounted_from(request.url))
        self._neighbours = Neighbours(self._link, request.volume, request.url)
        context = Context(store, self._link, _volume_options(options), time.time_ns)
        names = (request.url, request.volume, place)
        context.settings = ConfigFile(config_file(), names, server_of(request.url))
        self._context = context
        context.effective.on_change.append(self._limit_rates)
        self._limit_rates()
        self._api = Api(request, self.ask_to_end)
        self.volume = Volume(context, client, self._api.status)
        self._api.volume = self.volume
        self._link.admit = Account(store.facts, self._link.admit).admit
        self._orders = StandingOrders(self.volume, server_of(request.url), place)
        self._api.orders = self._orders
        self._fd = -1
        self._session: Session | None = None
        self._notifier: Notifier | None = None
        handlers = {
            **self._api.handlers(),
            **self._neighbours.handlers(),
            **LoginApi(self._link, self._wallet, asking.asked_elsewhere).handlers(),
        }
        self._control = ControlServer(paths.socket_file(request.volume), handlers)
        self._events = EventSocket(paths.event_socket_file(request.volume), context.events)
        self._ending = asyncio.Event()

    @property
    def mode(self) -> Mode:
        """The volume's mode."""
        return self._link.state.mode

    def summary(self) -> str:
        """Mode and unsent changes in a few words, for ``systemctl status``."""
        return f"{self.mode}, {self._store.journal.count()} changes not sent"

    async def prepare(self) -> None:
        """First contact. A volume never seen before needs its server; a known one does not."""
        known = self._store.facts.get("volume.known") == "1"
        if known:
            self._orders.begin()
        if known and self._link.held_offline:
            return
        limit = KNOWN_CONTACT_S if known else FIRST_CONTACT_S
        try:
            await asyncio.wait_for(self._link.connect(), limit)
        except TimeoutError:
            silence = f"{self._request.url}: no answer in {limit:g} s"
            self._link.lost(silence)
            if not known:
                await self._remote.close()
                raise Unreachable(silence) from None
        except RemoteError as error:
            if not known:
                await self._remote.close()
                raise
            log.warning("mounted without the server: %s", error)

    async def mount(self) -> None:
        """Mount, begin to serve, and listen for commands."""
        options = self._request.options
        os.makedirs(paths.ensure_runtime(), exist_ok=True)
        await self._control.start()
        try:
            self._events.start()
            self._fd = mounting.mount(
                self._request.mountpoint,
                fsname=self._request.url,
                allow_other=options.allow_other,
                default_permissions=True,
                read_only=options.ro,
                noexec=options.noexec,
            )
        except BaseException:
            self._events.close()
            await self._control.close()
            await self._remote.close()
            raise
        try:
            await self._attach(options)
        except BaseException:
            await self.take_down()
            raise
        self.volume.start()

    async def _attach(self, options: MountOptions) -> None:
        passthrough = options.passthrough == "auto" and not options.writeback
        generation = zlib.crc32(self._client.encode())
        shared = Shared(self.volume, fuse_fd=self._fd, generation=generation)
        bridge = Bridge(shared, distinct_errno=options.errno == "distinct")
        want = SessionOptions(writeback=options.writeback, passthrough=passthrough)
        self._session = session = Session(self._fd, bridge.handlers, want=want)
        self._session.attach()
        self.volume.context.sending.requests = lambda: session.used
        negotiated = await self._session.wait_ready()
        shared.passthrough = negotiated.passthrough and probe(self._fd)
        shared.direct = negotiated.direct
        self.volume.context.pages.kept_back = negotiated.writeback
        log.info("FUSE 7.%d, passthrough %s", negotiated.minor, shared.passthrough)
        self._notifier = Notifier(self._fd, minor=negotiated.minor)
        kernel = MountedKernel(self._notifier, shared, epoch=negotiated.epoch)
        self.volume.context.kernel = kernel

    async def announced(self) -> None:
        """Commands can find us from now on: obey what was ordered before they could."""
        self.volume.context.spawn(self._surroundings.watch_clocks())
        if scheme_of(self._request.url) != "dir":
            self.volume.context.spawn(self._login_watch.run())
        if server_of(self._request.url) != LOCAL:
            self._surroundings.start()
            self.volume.context.spawn(self._listen_to_the_system_bus())
            self._link.on_news = self._news
        self.volume.context.spawn(self._orders.keep_time())
        await self._orders.look()

    async def serve(self) -> None:
        """Until somebody unmounts, by command, by ``umount``, or by a signal."""
        assert self._session is not None
        closed = asyncio.ensure_future(self._session.wait_closed())
        while not closed.done():
            ending = asyncio.ensure_future(self._ending.wait())
            await asyncio.wait({closed, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if self._ending.is_set() and not closed.done():
                self._ending.clear()
                await self._unmount(lazy=self._api.lazy)
        await self._end()

    async def take_down(self) -> None:
        """What could not be begun leaves no mount behind that nobody serves."""
        await self._unmount(lazy=True)

    def ask_to_end(self) -> None:
        """Unmount soon: by command (which has unmounted already) or by signal."""
        self._api.lazy = True
        self._ending.set()

    async def _unmount(self, *, lazy: bool) -> None:
        """In a thread: umount2(2) writes back what the kernel holds, which we have to take."""
        place = self._request.mountpoint
        try:
            await asyncio.get_running_loop().run_in_executor(
                None, lambda: mounting.unmount(place, lazy=lazy)
            )
        except mounting.MountError as error:
            log.warning("%s", error)

    def _limit_rates(self) -> None:
        """At the start, and when the settings are other ones."""
        value = self._context.effective.value
        self._remote.limit(value("rate-up"), value("rate-down"))
        self._link.meter.limit(value("rate-up"), value("rate-down"))

    def _connection_lost(self, why: str) -> None:
        """Told by the worker, also while nobody asks the server anything."""
        if self._link.usable:
            self._link.lost(why)

    async def _listen_to_the_system_bus(self) -> None:
        """The library is loaded beside the loop, which has better uses for the time."""
        module = "awayfs.daemon.system_bus"
        loop = asyncio.get_running_loop()
        system_bus = await loop.run_in_executor(None, importlib.import_module, module)
        await system_bus.listen(self._surroundings)

    def _news(self, came: bool, cause: str) -> None:
        """The other volumes of this server look for themselves."""
        self.volume.context.spawn(self._neighbours.tell(came, cause))

    async def _end(self) -> None:
        self._surroundings.close()
        if self._notifier is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._notifier.close)
        await self.volume.stop()
        self._events.close()
        await self._control.close()
        os.close(self._fd)


def _remote_options(options: MountOptions) -> Mapping[str, str]:
    named = {
        "identity": options.identity,
        "known_hosts": options.known_hosts,
        "ssh_config": options.ssh_config,
        "server_program": options.server_program,
        "stall": str(options.timeout or STALL_S),
    }
    return {name: value for name, value in named.items() if value}


def _proofs(options: MountOptions) -> Proofs:
    files = {"the key file": options.identity, "the SSH configuration": options.ssh_config}
    return Proofs(os.environ, options.credentials, files)


def _volume_options(options: MountOptions) -> VolumeOptions:
    defaults = VolumeOptions()
    return VolumeOptions(
        settings=options.settings,
        writes=options.writes,
        base_limit=defaults.base_limit if options.base_limit is None else options.base_limit,
        conflicted=options.conflicted,
        read_only=options.ro,
        uid=os.getuid(),
        gid=os.getgid(),
        host=socket.gethostname(),
    )


def _client_id(store: Store) -> str:
    """This state directory's own part of operation ids, made once."""
    client = store.facts.get("volume.client")
    if client is None:
        client = "".join(secrets.choice(CLIENT_LETTERS) for _ in range(10))
        store.facts.set("volume.client", client)
    return client
