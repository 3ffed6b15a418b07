"""``mount`` and ``umount``."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import replace

import click

from awayfs.cli import login, show
from awayfs.cli.ask import PATH, Failed, json_option, request, shown
from awayfs.cli.ending import until_ended
from awayfs.control import handshake, mountinfo, mounts, volumes
from awayfs.control.client import MountInfo
from awayfs.control.liveness import is_dead
from awayfs.control.messages import ANSWER_WITHIN, text_of
from awayfs.control.options import parse
from awayfs.core.modes import Mode

_GONE_WITHIN = 10.0
_LAZY_WITHIN = 3.0


@click.command()
@click.argument("url")
@click.argument("mountpoint", type=PATH)
@click.option("-o", "options", multiple=True, metavar="OPT,...", help="Mount options.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
@json_option
def mount(
    url: str, mountpoint: bytes, options: tuple[str, ...], foreground: bool, as_json: bool
) -> None:
    """Mount a share on an empty directory.

    URL is dir:/path or sftp://user@host/path. A known volume is mounted also while its
    server is unreachable.

    \b
    Options: ro, noexec, allow_other, default_permissions, fresh=SECONDS,
    writes=behind|close|through, cache-size=SIZE, base-limit=SIZE, errno=posix|distinct,
    cull=off, pin, never-cache, brun=PERCENT, bcull=PERCENT, bstop=PERCENT, frun=PERCENT,
    fcull=PERCENT, fstop=PERCENT, learn=off, walk-interval=SECONDS, bandwidth=SIZE, indexers=off,
    ageing=SECONDS, rate-up=SIZE, rate-down=SIZE, weak-rate=SIZE, weak-latency=SECONDS,
    conflicted=local|server|error, reintegrate=eager|lazy|manual,
    identity=FILE, credentials=FILE, known_hosts=FILE, ssh_config=FILE, timeout=SECONDS,
    server_program=auto|never, passthrough=auto|off, writeback, volume-id=NAME
    """
    mount_one(url, mountpoint, ",".join(options), foreground=foreground, as_json=as_json)


def mount_one(
    url: str,
    mountpoint: bytes,
    options: str,
    *,
    foreground: bool = False,
    fake: bool = False,
    as_json: bool = False,
) -> None:
    """Check everything that can be checked, then start the daemon."""
    from awayfs.cli import mountpoint as places
    from awayfs.cli import spawn
    from awayfs.control.urls import canonical, volume_id

    wanted = parse(options)
    address = canonical(url)
    volume = wanted.volume_id or volume_id(address)
    if not fake:
        _clear_dead(mountpoint, address)
    place = places.check(mountpoint)
    _refuse_second(volume, address)
    if not address.startswith("dir:"):
        from awayfs.control import credentials  # and with it all settings

        credentials.read(wanted.credentials, address)  # refused now, and not only in a log
    start = handshake.StartRequest(address, place, volume, wanted)
    if fake:
        return
    if foreground:
        spawn.in_foreground(start)
    try:
        mode = spawn.in_background(start)
    except spawn.LoginNeeded as needed:  # a volume never seen before; it is asked for once
        if not login.can_ask():
            raise
        secrets = login.ask(login.Asked(needed.wants, address))
        mode = spawn.in_background(replace(start, secrets=secrets))
    if mode == Mode.AUTH_REQUIRED and login.can_ask():
        mode = _logged_in(place)
    if as_json:
        show.as_json({"volume": volume, "url": address, "mountpoint": place, "mode": mode})
    else:
        click.echo(show.printable(f"{address} is mounted on {text_of(place)} ({mode})"))


def _logged_in(place: bytes) -> str:
    """Ask for what a known volume waits for; its mode. It is mounted whatever comes of it."""
    mount, _ = mounts.mount_of(place)
    wanted = request(mount, "login_wanted")
    if wanted["wants"] in ("password", "passphrase"):
        try:
            secrets = login.ask(login.Asked(wanted["wants"], mount.url))
            return str(login.send(mount, secrets).get("mode", ""))
        except Failed as error:
            show.complain(error.message)
    return str(wanted["mode"])


def _clear_dead(place: bytes, url: str) -> None:
    """Take away what a daemon of the same share left here when it died.

    Only what the kernel itself calls dead: a daemon that does not answer may come back. Handles
    that are still open into it fail from now on as they did before, with ENOTCONN.
    """
    resolved, _ = mountinfo.locate(place, mountinfo.read())
    for target in mounts.find_mounts():
        if target.mountpoint != resolved or target.url != url or target.running:
            continue
        if mounts.lingers(target) or is_dead(target.mountpoint):
            _detach_dead(target)


def _refuse_second(volume: str, url: str) -> None:
    for present in mounts.find_mounts():
        if present.volume == volume and present.running:
            raise Failed(
                f"{url}: is already mounted on {shown(present)}; "
                f"use it there, or run 'awayfs umount {shown(present)}' first"
            )


@click.command()
@click.argument("mountpoint", type=PATH)
@click.option("-l", "--lazy", is_flag=True, help="Detach now, even when in use or stuck.")
@json_option
def umount(mountpoint: bytes, lazy: bool, as_json: bool) -> None:
    """Unmount, and wait until all is on the local disk.

    Changes that were not sent are kept for the next mount.
    """
    name = text_of(mountpoint)
    target = _mounted(mountpoint)
    when = "will be sent at the next mount"
    if target.running:
        pending, policy = _ask(target, lazy)
        if policy == "manual":
            when = "wait" + ("s" if pending == 1 else "") + " for 'awayfs sync' at the next mount"
    elif target.elsewhere:
        pending = None
        _detach(target.mountpoint, lazy=lazy)
        if not as_json:
            click.echo(show.printable(f"{name}: unmounted; its state is elsewhere"))
    else:
        _detach_dead(target)
        known = volumes.read(target.volume) if target.volume else None
        pending = known.pending if known else None
        if not as_json:
            click.echo(show.printable(f"{name}: a dead mount was cleaned up"))
    if as_json:
        show.as_json({"mountpoint": target.mountpoint, "pending": pending})
    elif pending:
        verb = "is" if pending == 1 else "are"
        changes = show.count(pending, "change")
        click.echo(f"{changes} {verb} kept and {when}")


def _mounted(place: bytes) -> MountInfo:
    """The mount at a mount point, running or dead."""
    name = text_of(place)
    resolved, inside = mountinfo.locate(place, mountinfo.read())
    for candidate in mounts.find_mounts():
        if candidate.mountpoint == resolved:
            return candidate
    if inside is None:
        raise Failed(f"{name}: no awayfs mount is there; see 'awayfs status'")
    if inside.mountpoint != resolved:
        at = text_of(inside.mountpoint)
        raise Failed(f"{name}: not a mount point; run 'awayfs umount {at}'")
    mount, _ = mounts.mount_of(place)  # another user's, which it says; or bound here
    raise Failed(f"{name}: is bound to the mount on {shown(mount)}; unmount it with umount(8)")


def _ask(target: MountInfo, lazy: bool) -> tuple[int | None, str]:
    """Ask the daemon to unmount and see the mount go; what is unsent, and the policy for that."""
    try:
        within = _LAZY_WITHIN if lazy else ANSWER_WITHIN
        reply = request(target, "unmount", {"lazy": lazy}, timeout=within)
    except Failed:
        if _gone(target, 1.0):
            known = volumes.read(target.volume)  # it was quicker than its answer
            return known.pending if known else None, ""
        if not lazy:
            raise
        _detach(target.mountpoint)
        return None, ""
    if not _gone(target, _GONE_WITHIN):
        raise Failed(f"{shown(target)}: still mounted; see what uses it with 'fuser -m', or --lazy")
    if not lazy:  # else the daemon serves whoever still uses the mount
        until_ended(target)
    pending = reply.get("pending")
    return pending if isinstance(pending, int) else None, str(reply.get("reintegrate", ""))


def _gone(target: MountInfo, within: float) -> bool:
    deadline = time.monotonic() + within
    while True:
        entries = mountinfo.read()
        if not any(e.is_awayfs and e.mountpoint == target.mountpoint for e in entries):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _detach_dead(target: MountInfo) -> None:
    """Take away what a daemon left that died, and itself where a thread of it is stuck.

    One that tells the kernel what to forget waits for whoever waits for an answer of the daemon.
    When that is killed, neither goes on, and who looks into the mount waits for ever. The kernel
    answers them all when it is told to; see "Aborting a filesystem connection" in its fuse.rst.
    """
    stuck = mounts.lingers(target)
    if stuck and os.geteuid() != 0:
        _abort(target.mountpoint)
    _detach(target.mountpoint, force=stuck)
    mounts.clear_leftovers(target)
    until = time.monotonic() + _GONE_WITHIN
    while mounts.lingers(target) and time.monotonic() < until:
        time.sleep(0.02)


def _abort(place: bytes) -> None:
    """For who is not root: through the file that the kernel has for that."""
    for entry in mountinfo.read():
        if entry.is_awayfs and entry.mountpoint == place:
            number = entry.device.partition(":")[2]
            with suppress(OSError), open(f"/sys/fs/fuse/connections/{number}/abort", "w") as file:
                file.write("1")


def _detach(place: bytes, *, lazy: bool = True, force: bool = False) -> None:
    """Take a mount out of the tree without asking its daemon; unless ``lazy``, an unused one.

    With ``force`` whoever waits for an answer gets an error, where root does it.
    """
    if os.geteuid() == 0:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        forced, detach, no_follow = 1, 2, 8
        how = no_follow | (detach if lazy else 0) | (forced if force else 0)
        if library.umount2(place, how) != 0:
            why = os.strerror(ctypes.get_errno())
            raise Failed(f"{text_of(place)}: cannot be unmounted: {why}; try --lazy")
        return
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    if tool is None:
        raise Failed(f"{text_of(place)}: fusermount3 is missing; install fuse3, or ask root")
    flags = ["-u", "-z"] if lazy else ["-u"]
    done = subprocess.run([tool, *flags, "--", place], capture_output=True, check=False)
    if done.returncode != 0:
        why = text_of(done.stderr).strip() or f"status {done.returncode}"
        advice = "ask root for 'umount -l'" if lazy else "try --lazy"
        raise Failed(f"{text_of(place)}: cannot be unmounted: {why}; {advice}")
