"""``volumes``, ``forget``, ``fsck``, ``cache`` and ``cull``: what is kept on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import click

from awayfs.cli import show
from awayfs.cli.ask import Failed, each, json_option, scoped, shown, sure
from awayfs.control import mounts, paths
from awayfs.control import volumes as known_volumes
from awayfs.control.volumes import VolumeInfo
from awayfs.core.errors import StoreInUse, UsageError


@click.command()
@json_option
def volumes(as_json: bool) -> None:
    """List the volumes that this machine has state of, mounted or not."""
    places = {mount.volume: shown(mount) for mount in mounts.find_mounts() if mount.running}
    found = known_volumes.known()
    if as_json:
        show.as_json([_as_dict(info, places.get(info.volume)) for info in found])
    elif not found:
        click.echo("no volumes are known")
    else:
        rows = [
            (
                info.volume,
                info.url or "unknown",
                places.get(info.volume, "-"),
                _pending(info, info.volume in places),
                show.ago(info.last_mounted),
            )
            for info in found
        ]
        show.table(("VOLUME", "URL", "MOUNTED ON", "PENDING", "LAST MOUNTED"), rows)


def _as_dict(info: VolumeInfo, mountpoint: str | None) -> dict[str, Any]:
    return {
        "volume": info.volume,
        "url": info.url,
        "created": info.created,
        "last_mounted": info.last_mounted,
        "pending": info.pending,
        "mountpoint": mountpoint,
    }


def _pending(info: VolumeInfo, mounted: bool) -> str:
    if info.pending is None:
        return "see status" if mounted else "unknown"
    return str(info.pending)


@click.command()
@click.argument("volume")
@click.option("--lose-changes", is_flag=True, help="Also when changes were never sent.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def forget(volume: str, lose_changes: bool, yes: bool, as_json: bool) -> None:
    """Remove all that this machine keeps of VOLUME (an id or a URL); the share stays."""
    info = _find(volume)
    _refuse_mounted(info)
    if not lose_changes:
        _refuse_pending(info)
    sure(f"Remove cache and journal of {show.printable(info.url or info.volume)}?", yes)
    try:
        with known_volumes.unused(info.volume):
            if not lose_changes:  # it may have been mounted while somebody was asked
                _refuse_pending(known_volumes.read(info.volume) or info)
            _remove(info.volume)
    except StoreInUse as error:
        raise Failed(f"{error}; unmount it first") from None
    if as_json:
        show.as_json({"volume": info.volume, "url": info.url, "forgotten": True})
    else:
        click.echo(show.printable(f"{info.volume} is forgotten"))


def _remove(volume: str) -> None:
    directory = paths.volume_dir(volume)
    doomed = os.path.join(paths.volumes_dir(), f".forget-{volume}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(directory, doomed)  # one step, so that half a volume is never found
    shutil.rmtree(doomed)


def _refuse_pending(info: VolumeInfo) -> None:
    if info.pending == 0:
        _refuse_lost(info.volume)
        return
    what = "changes may" if info.pending is None else show.count(info.pending, "change") + " would"
    raise Failed(f"{info.volume}: {what} be lost; mount it to send them, or give --lose-changes")


def _refuse_lost(volume: str) -> None:
    """What a salvage put aside may be unsent as well, and no record counts it."""
    if lost := known_volumes.lost_and_found(volume):
        raise Failed(
            f"{volume}: {show.count(lost, 'file')} in its lost+found would be lost; mount it and "
            "look into .awayfs/lost+found, or give --lose-changes"
        )


def _refuse_mounted(info: VolumeInfo) -> None:
    for mount in mounts.find_mounts():
        if mount.volume == info.volume and mount.running:
            raise Failed(
                f"{info.volume}: is mounted on {shown(mount)}; "
                f"run 'awayfs umount {shown(mount)}' first"
            )


def _find(name: str) -> VolumeInfo:
    """A known volume by its id, the one beginning of an id, or its URL."""
    found = known_volumes.known()
    matches = [info for info in found if info.volume == name]
    if not matches and ":" in name:
        matches = [info for info in found if info.url and info.url == _canonical(name)]
    if not matches and name:
        matches = [info for info in found if info.volume.startswith(name)]
    if len(matches) > 1:
        raise Failed(f"{name}: several volumes begin like that; see 'awayfs volumes'")
    if not matches:
        raise Failed(f"{name}: no such volume; see 'awayfs volumes'")
    return matches[0]


def _canonical(url: str) -> str:
    from awayfs.control.urls import canonical

    try:
        return canonical(url)
    except UsageError:
        return url


@click.command()
@click.argument("volume")
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing unsent is deleted.")
@json_option
def fsck(volume: str, repair: bool, as_json: bool) -> int:
    """Check what this machine keeps of VOLUME (an id or a URL), while it is not mounted."""
    info = _find(volume)
    _refuse_mounted(info)
    command = [sys.executable, "-P", "-m", "awayfs.daemon.fsck", paths.volume_dir(info.volume)]
    flags = [*(["--repair"] if repair else []), *(["--json"] if as_json else [])]
    sys.stdout.flush()
    done = subprocess.run([*command, *flags], check=False)
    return 1 if done.returncode else 0


@click.command()
@click.argument("scope", required=False)
@json_option
def cache(scope: str | None, as_json: bool) -> int:
    """Show what the cache holds."""
    return _report("cache", scope, as_json)


@click.command()
@click.argument("scope", required=False)
@json_option
def cull(scope: str | None, as_json: bool) -> int:
    """Evict all clean content that is not pinned and not open; it is fetched again when used."""
    return _report("cull", scope, as_json)


def _report(method: str, scope: str | None, as_json: bool) -> int:
    """Print the numbers that a method answers, per mount."""
    replies, well = each(scoped(scope), method)
    one = scope is not None and not scope.startswith("server:")
    if as_json and (replies or not one):
        show.as_json(replies[0] if one else replies)
    elif not as_json:
        for reply in replies:
            click.echo(show.printable(reply["mountpoint"]))
            show.facts(
                [
                    (_word(name), _number(name, value))
                    for name, value in reply.items()
                    if name not in ("volume", "mountpoint")
                ]
            )
    return 0 if well else 1


def _word(name: str) -> str:
    return name.replace("_", " ")


def _number(name: str, value: Any) -> str:
    bytes_named = name.endswith(("bytes", "limit", "size", "free"))
    return show.size(value) if bytes_named and isinstance(value, int) else str(value)
