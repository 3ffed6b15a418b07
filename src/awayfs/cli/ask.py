"""From what a person names (SCOPE, PATH) to daemons, and the requests to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from awayfs.cli import show
from awayfs.control import volumes
from awayfs.control.client import Client, ControlError, MountInfo, find_mounts, mount_of
from awayfs.control.messages import ANSWER_WITHIN, text_of
from awayfs.core.errors import UsageError
from awayfs.core.orders import Scope

Function = TypeVar("Function", bound=Callable[..., Any])


ELSEWHERE = (
    "a daemon serves it whose state is elsewhere; "
    "set XDG_STATE_HOME and XDG_RUNTIME_DIR as they were when it was mounted"
)


class Failed(click.ClickException):
    """It did not work: one line, exit status 1."""

    exit_code = 1


def PATH(value: str | bytes) -> bytes:
    """A path as bytes. click's own type looks at the file, which can hang on a mount."""
    path = os.fsencode(value)
    if not path or b"\0" in path:
        raise click.BadParameter("an empty path")
    return path


def json_option(function: Function) -> Function:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def shown(mount: MountInfo) -> str:
    """The mount point as text."""
    return text_of(mount.mountpoint)


def full(mount: MountInfo, path: str) -> str:
    """A path of a reply as one that can be typed."""
    return os.path.join(shown(mount), path) if path else shown(mount)


def request(
    mount: MountInfo,
    method: str,
    params: dict[str, Any] | None = None,
    *,
    what: str = "",
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    timeout: float = ANSWER_WITHIN,
) -> dict[str, Any]:
    """What the mount's daemon answers; failures name ``what`` was asked about."""
    given, what = what, what or shown(mount)
    if mount.elsewhere:
        raise Failed(f"{what}: {ELSEWHERE}")
    if not mount.running:
        raise Failed(
            f"{what}: its daemon is not running; run 'awayfs umount {shown(mount)}' and mount again"
        )
    try:
        with Client(mount.socket) as client:
            return client.call(method, params, timeout, on_progress)
    except ControlError as error:
        if error.kind == "unknown-method":
            name = method.replace("_", " ")
            raise Failed(
                f"{what}: this version of the daemon does not offer {name}; mount again to use it"
            ) from None
        asked = [(params or {}).get("path"), *((params or {}).get("paths") or ())]
        message = str(error)
        for inner in asked:  # the daemon knows it by its path below the mount
            if inner and message.startswith(f"{inner}: "):
                place = given or os.path.join(what, str(inner))
                message = place + message.removeprefix(str(inner))
                break
        raise Failed(message if message.startswith(what) else f"{what}: {message}") from None


def located(path: bytes) -> tuple[MountInfo, str]:
    """The mount that a PATH is in, and the path for a request."""
    mount, inner = mount_of(path)
    return mount, text_of(inner)


def about(path: bytes, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask about one PATH."""
    mount, inner = located(path)
    return request(mount, method, {**(params or {}), "path": inner}, what=text_of(path))


@dataclass(frozen=True, slots=True)
class Scoped:
    """What a SCOPE means: the mounts of this moment, and for later ones the scope itself."""

    scope: Scope
    mounts: list[MountInfo]
    server: str = ""


def what_is_meant(scope: str | None) -> Scoped:
    """The meaning of a SCOPE: a mount point, ``server:HOST``, or all.

    All mounts are those whose state is here: the others are not ours to command from here.
    Raises ``UsageError`` for what is no mount point of ours, and for a server that none of the
    volumes known here is on.
    """
    if scope and not scope.startswith("server:"):
        try:
            return Scoped(Scope.VOLUME, [mounted_at(os.fsencode(scope))])
        except ControlError as error:
            raise UsageError(str(error)) from None
    from awayfs.control.urls import server_of

    here = [mount for mount in find_mounts() if mount.volume]
    if not scope:
        return Scoped(Scope.ALL, here)
    server = scope.removeprefix("server:").rpartition("@")[2].strip("[]").lower()
    mounts = [mount for mount in here if server and server_of(mount.url) == server]
    if not mounts and server not in {server_of(info.url) for info in volumes.known()} - {""}:
        raise UsageError(f"{scope}: no volume known here is on it; see 'awayfs volumes'")
    return Scoped(Scope.SERVER, mounts, server)


def scoped(scope: str | None) -> list[MountInfo]:
    """The mounts of a SCOPE, never none."""
    meant = what_is_meant(scope)
    if meant.mounts:
        return meant.mounts
    if scope:
        raise Failed(f"{scope}: nothing of it is mounted; see 'awayfs status'")
    raise Failed("nothing is mounted; mount something with 'awayfs mount URL MOUNTPOINT'")


def mounted_at(place: bytes) -> MountInfo:
    """The mount at exactly this mount point."""
    mount, inner = mount_of(place)
    if inner:
        raise UsageError(f"{text_of(place)}: not a mount point; the mount point is {shown(mount)}")
    return mount


def in_question(scope: str | None, path: bytes | None) -> list[tuple[MountInfo, str | None]]:
    """Mounts with the path to ask for: one for a PATH, else all in scope."""
    if path is not None:
        return [located(path)]
    return [(mount, None) for mount in scoped(scope)]


def each(
    mounts: list[MountInfo], method: str, params: dict[str, Any] | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Ask every mount; the replies of those that answered, each with what it is about.

    A mount that fails is complained about and does not keep the others from being asked.
    """
    replies, well = [], True
    for mount in mounts:
        try:
            reply = request(mount, method, params)
        except Failed as error:
            show.complain(error.message)
            well = False
            continue
        replies.append({"volume": mount.volume, "mountpoint": shown(mount), **reply})
    return replies, well


def the_mount(place: bytes | None) -> MountInfo:
    """The one mount that a command without PATH means: named, around us, or the only one."""
    if place is not None:
        return mount_of(place)[0]
    try:
        return mount_of(b".")[0]
    except (ControlError, OSError):
        mounts = scoped(None)
    if len(mounts) > 1:
        raise Failed("several volumes are mounted; say which one with --mount MOUNTPOINT")
    return mounts[0]


def mount_option(function: Function) -> Function:
    """Add ``--mount``, for commands that name no PATH."""
    return click.option(
        "--mount", "-m", "place", type=PATH, metavar="MOUNTPOINT", help="Which mount is meant."
    )(function)


def sure(question: str, yes: bool) -> bool:
    """Ask a person; a script that gives the command has decided already. Whether one was asked."""
    import sys

    if yes or not sys.stdin.isatty():
        return False
    if not click.confirm(question, err=True):
        raise Failed("left as it is")
    return True
