"""The daemon of one mount: from the request on standard input to the end of the mount.

The order at the start: the store (and with it the lock that keeps a second daemon away), the
link (a volume that was never seen needs its server now, a known one does not), the mount, the
control socket, and only then the word that all is ready. At the end the same backwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import resource
import shutil
import signal
import sys

from awayfs.control import mounts, paths, volumes
from awayfs.control.handshake import StartRequest, receive, report_error, report_ready
from awayfs.core.errors import AwayfsError, StoreError, StoreInUse
from awayfs.daemon.loop_watch import watched
from awayfs.daemon.service import Service
from awayfs.daemon.service_manager import ServiceManager
from awayfs.daemon.stacks import tell_on_signal
from awayfs.store.store import Store

log = logging.getLogger("awayfs")


def main() -> int:
    """Serve; 0 after an orderly end, 1 when the mount could not be made."""
    _leave_no_core()
    _have_many_files()
    request = receive()
    _configure_logging(request)
    manager = ServiceManager(os.environ, os.getpid())
    try:
        return asyncio.run(_serve(request, manager))
    except AwayfsError as error:
        log.error("%s", error)
        report_error(request, error)
        if request.foreground:
            print(f"awayfs: {error}", file=sys.stderr)
    except OSError as error:
        log.exception("the mount could not be made")
        message = f"{error.filename or request.url}: {error.strerror or error}"
        report_error(request, error, message)
    return 1


def _leave_no_core() -> None:
    """A core file could have passwords in it; where the threads were is told in the log."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()


def _have_many_files() -> None:
    """All that programs have open here is open in this process: the usual 1024 would be theirs
    together. The higher limit is ours to take, and it is inherited by workers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some kernels have a lower one of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _collect_seldom() -> None:
    """Next to nothing here refers to itself in a ring: looking for such took a tenth of the time
    that sending many changes takes.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _configure_logging(request: StartRequest) -> None:
    level = os.environ.get("AWAYFS_LOG", "INFO").upper()
    logging.basicConfig(
        level=level if level in logging.getLevelNamesMapping() else "INFO",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


async def _serve(request: StartRequest, manager: ServiceManager) -> int:
    directory = paths.ensure_volume(request.volume)
    new = volumes.read(request.volume) is None
    tell_on_signal()
    store = _open_store(directory, request)
    pending = 0
    try:
        service = Service(request, store)
        await service.prepare()
        _collect_seldom()
        volumes.note_mounted(request.volume, request.url)
        new = False
        await service.mount()
        try:
            await _begin(service, request, manager, _salvage_note(store))
        except BaseException:
            await service.take_down()
            raise
        manager.ready(service.summary())
        telling = asyncio.ensure_future(manager.keep_telling(service.summary))
        with watched():
            await service.serve()
        telling.cancel()
        manager.stopping()
        pending = store.journal.count()
    finally:
        store.close()
        if new:
            _remove_unborn(request.volume)
    _note_unmounted(request, store, pending)
    mounts.withdraw(request.volume)
    return 0


async def _begin(
    service: Service, request: StartRequest, manager: ServiceManager, note: str
) -> None:
    """Let commands find the mount, and say that it can be used."""
    mounts.announce(request.volume, request.url, request.mountpoint)
    await service.announced()
    _end_on_signals(service, manager)
    report_ready(request, str(service.mode), note)
    if note and request.foreground:
        print(f"awayfs: {note}", file=sys.stderr)


def _end_on_signals(service: Service, manager: ServiceManager) -> None:
    def end() -> None:
        manager.stopping()
        service.ask_to_end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _note_unmounted(request: StartRequest, store: Store, pending: int) -> None:
    """Also on a full disk: from now on the reserve serves nobody."""
    try:
        volumes.note_unmounted(request.volume, request.url, pending)
    except OSError:
        store.reserve.give_up()
        volumes.note_unmounted(request.volume, request.url, pending)


def _open_store(directory: str, request: StartRequest) -> Store:
    store = Store.open(directory, create=True)
    if store.salvaged is not None:
        log.error("the database was damaged and set aside: %s", store.salvaged)
    known = store.facts.get("volume.url")
    if known is not None and known != request.url:
        store.close()
        raise StoreError(f"{directory}: holds the state of {known}, not of {request.url}")
    if known is None:
        store.facts.set("volume.url", request.url)
    return store


def _salvage_note(store: Store) -> str:
    """What the user should know of a database that was damaged; nothing if it was not."""
    report = store.salvaged
    if report is None:
        return ""
    return (
        f"the database was damaged ({report.reason}) and set aside in {report.set_aside}; "
        "what could be read of it is in use, unsent changes first"
    )


def _remove_unborn(volume: str) -> None:
    """A first mount that did not come about leaves nothing but its log behind; what another daemon
    has begun meanwhile stays.
    """
    directory = paths.volume_dir(volume)
    with contextlib.suppress(StoreInUse), volumes.unused(volume):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name == "daemon.log":
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
