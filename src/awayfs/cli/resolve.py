"""``resolve``: deciding conflicts, one or many, and taking decisions back."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from awayfs.cli import mergetools, show
from awayfs.cli.ask import PATH, Failed, about, in_question, json_option, located, request, shown
from awayfs.cli.progress import Bar
from awayfs.control import mountinfo, paths
from awayfs.control.client import MountInfo
from awayfs.control.messages import text_of
from awayfs.core.naming import cut

AT_ONCE = 2000
"""Paths in one request, which has a longest length."""


@click.command()
@click.argument("path", type=PATH, nargs=-1)
@click.option(
    "--keep", type=click.Choice(("local", "server", "both", "base")), help="Which variant stays."
)
@click.option("--with", "file", type=PATH, metavar="FILE", help="A file with the merged content.")
@click.option("--tool", metavar="NAME", help="Merge with meld, vimdiff, or as git is told to.")
@click.option("--kind", "kinds", multiple=True, help="Only conflicts of this kind.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")
@click.option("--undo", is_flag=True, help="Take the last decision about PATH back.")
@click.option("--history", is_flag=True, help="List what decisions gave up.")
@click.option(
    "--force",
    is_flag=True,
    help="Also where it could not be taken back; with --undo: where it was changed since.",
)
@json_option
def resolve(
    path: tuple[bytes, ...],
    keep: str | None,
    file: bytes | None,
    tool: str | None,
    kinds: tuple[str, ...],
    dry_run: bool,
    undo: bool,
    history: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Decide conflicts: at each PATH, below it where it is a directory, or by pattern.

    A pattern such as '*.txt' or 'notes/**' stands in quotes, so that the shell leaves it alone.
    """
    ways = [keep is not None, file is not None, tool is not None]
    if history:
        return _history(path, as_json)
    if undo:
        return _undo(path, keep, force, as_json)
    if sum(ways) != 1:
        raise click.UsageError(
            "give one of --keep local|server|both|base, --with FILE, --tool NAME"
        )
    if not path and not kinds:
        raise click.UsageError("name a PATH, a directory, a pattern or a --kind")
    if tool is not None:
        return _with_tool(path, kinds, tool, dry_run, force, as_json)
    asked: dict[str, Any] = {"keep": keep} if keep else {}
    if force:
        asked["force"] = True
    if dry_run:
        asked["dry_run"] = True
    if file is None:
        return _decide(path, kinds, asked, as_json)
    with _outside(file) as readable:
        return _decide(path, kinds, {**asked, "with": readable}, as_json)


# -- asking -----------------------------------------------------------------------------------


def _decide(
    path: tuple[bytes, ...], kinds: tuple[str, ...], asked: dict[str, Any], as_json: bool
) -> int:
    replies: list[dict[str, Any]] = []
    for mount, chosen, what in _by_mount(path):
        params = {**asked, "paths": chosen, **({"kinds": list(kinds)} if kinds else {})}
        with Bar("resolve") as bar:
            reply = request(mount, "resolve", params, what=what, on_progress=bar)
        replies.append({"mountpoint": shown(mount), **reply})
    if as_json:
        show.as_json(replies[0] if len(replies) == 1 else _together(replies))
        return 0 if not any(reply.get("failures") or reply.get("left") for reply in replies) else 1
    well = True
    for reply in replies:
        well &= _tell(reply, asked, path)
    return 0 if well else 1


def _by_mount(path: tuple[bytes, ...]) -> Iterator[tuple[MountInfo, list[str], str]]:
    """Mounts with the paths in each, not too many at a time, and what to call them."""
    if not path:
        for mount, _ in in_question(None, None):
            yield mount, [], ""
        return
    grouped: dict[str, tuple[MountInfo, list[str]]] = {}
    for one in path:
        mount, inner = located(one)
        grouped.setdefault(mount.socket, (mount, []))[1].append(inner)
    what = text_of(path[0]) if len(path) == 1 else ""
    for mount, inners in grouped.values():
        for start in range(0, len(inners), AT_ONCE):
            yield mount, inners[start : start + AT_ONCE], what


def _together(replies: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: [item for reply in replies for item in reply.get(key, [])]
        for key in ("resolved", "failed", "would")
    }


def _tell(reply: dict[str, Any], asked: dict[str, Any], path: tuple[bytes, ...]) -> bool:
    """Say what became of one mount's conflicts; whether all is well."""
    if "would" in reply:
        for item in reply["would"]:
            place = os.path.join(reply["mountpoint"], item["path"])
            click.echo(show.printable(f"{place}  {item['kind']}: {item['text']}"))
        return True
    failed = reply.get("failed") or []
    for item in failed:
        place = os.path.join(reply["mountpoint"], item["path"])
        show.complain(f"{place}: {item['why']}")
    more = reply.get("failures", 0) - len(failed)
    if more > 0:
        show.complain(f"and {more} more")
    decided = reply.get("resolved", [reply])
    if len(decided) == 1:
        _tell_one(decided[0], reply, asked, path)
    elif decided:
        click.echo(f"resolved {len(decided)} conflicts")
    if reply.get("left"):
        show.complain(f"the server went away: {reply['left']} conflicts are left as they were")
    return not failed and not reply.get("left")


def _tell_one(
    decided: dict[str, Any], reply: dict[str, Any], asked: dict[str, Any], path: tuple[bytes, ...]
) -> None:
    if len(path) == 1 and "path" not in decided:
        place = text_of(path[0])
    else:
        place = os.path.join(reply["mountpoint"], str(decided.get("path") or ""))
    kept = decided.get("kept") or asked.get("keep") or "the given content"
    line = f"{place}: resolved, kept {'the given content' if kept == 'with' else kept}"
    if decided.get("copy"):
        line += f"; the other one is {decided['copy']}"
    for which in decided.get("too_large") or []:
        line += f"; the {which} version could not be kept in the history"
    click.echo(show.printable(line))


@contextmanager
def _outside(file: bytes) -> Iterator[str]:
    """A name of the file that the daemon can read: never inside a mount, maybe its own."""
    place, inside = mountinfo.locate(file, mountinfo.read())
    if inside is None:
        if os.path.isdir(place):
            raise Failed(f"{text_of(file)}: is a directory; give the file with the merged content")
        if not os.path.isfile(place):
            raise Failed(f"{text_of(file)}: is not a file; give the file with the merged content")
        if not os.access(place, os.R_OK):
            raise Failed(f"{text_of(file)}: cannot be read: Permission denied")
        yield text_of(place)
        return
    with tempfile.TemporaryDirectory(prefix="resolve-", dir=paths.ensure_runtime()) as directory:
        copy = os.path.join(directory, "content")
        try:
            shutil.copyfile(place, os.fsencode(copy))
        except OSError as error:
            raise Failed(f"{text_of(file)}: cannot be read: {error.strerror}") from None
        yield copy


# -- tools ------------------------------------------------------------------------------------


def _with_tool(
    path: tuple[bytes, ...],
    kinds: tuple[str, ...],
    name: str,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> int:
    """One conflict after the other in a tool on this terminal."""
    tool = mergetools.find(name)
    results: list[dict[str, Any]] = []
    for mount, chosen, what in _by_mount(path):
        params = {"keep": "local", "dry_run": True, "paths": chosen}
        listed = request(
            mount, "resolve", {**params, **({"kinds": list(kinds)} if kinds else {})}, what=what
        )
        for item in listed["would"]:
            place = os.path.join(shown(mount), item["path"])
            if dry_run:
                results.append({"path": place, "why": f"would be merged with {name}"})
                continue
            try:
                results.append(
                    {"path": place, "why": _merged(mount, item["path"], place, name, tool, force)}
                )
            except Failed as error:
                results.append({"path": place, "why": error.message})
    if as_json:
        show.as_json({"results": results})
    else:
        for result in results:
            _tell_tool(result, dry_run)
    return 0 if dry_run or not any(result["why"] for result in results) else 1


def _tell_tool(result: dict[str, Any], dry_run: bool) -> None:
    if result["why"] is None:
        click.echo(show.printable(f"{result['path']}: resolved, kept the merged content"))
    elif dry_run:
        click.echo(show.printable(f"{result['path']}: {result['why']}"))
    else:
        why = result["why"].removeprefix(f"{result['path']}: ")
        show.complain(f"{result['path']}: stays in conflict: {why}")


def _merged(
    mount: MountInfo, inner: str, place: str, name: str, tool: mergetools.Tool, force: bool
) -> str | None:
    """Merge one conflict; None when that decided it, else why not."""
    with tempfile.TemporaryDirectory(prefix="merge-", dir=paths.ensure_runtime()) as directory:
        out = request(
            mount, "conflict_checkout", {"path": inner, "directory": directory}, what=place
        )
        places = _arranged(directory, os.path.basename(inner), out["variants"])
        before = _read(places["MERGED"]) or b""
        status = mergetools.run(tool, places)
        why = mergetools.verdict(status, tool.trusted, before, _read(places["MERGED"]))
        if why is not None:
            return why
        params = {
            "paths": [inner],
            "with": places["MERGED"],
            "seen": out["seen"],
            "made_from": out.get("made_from"),
            "why": f"--tool {name}",
            **({"force": True} if force else {}),
        }
        request(mount, "resolve", params, what=place)
        return None


def _arranged(directory: str, name: str, variants: list[str]) -> dict[str, str]:
    """The variants under the names that git gives them; one that is not there is empty."""
    parts = os.path.splitext(os.fsencode(name))
    stem, extension = (os.fsdecode(cut(p, most)) for p, most in zip(parts, (100, 32), strict=True))
    places: dict[str, str] = {}
    for variable, which in (("BASE", "base"), ("LOCAL", "local"), ("REMOTE", "server")):
        places[variable] = os.path.join(directory, f"{stem}_{variable}{extension}")
        if which in variants:
            os.rename(os.path.join(directory, which), places[variable])
        else:
            _write(places[variable], b"")
    places["MERGED"] = os.path.join(directory, f"{stem}_MERGED{extension}")
    if "merged" in variants:
        os.rename(os.path.join(directory, "merged"), places["MERGED"])
    elif "local" not in variants:  # it was removed here
        _write(places["MERGED"], _read(places["REMOTE"]) or b"")
    elif not _first_try(places):
        _write(places["MERGED"], _read(places["LOCAL"]) or b"")
    return places


def _first_try(places: dict[str, str]) -> bool:
    """Put into MERGED what a tool begins with: a merge with markers, where it is text."""
    module = [sys.executable, "-P", "-m", "awayfs.volume.merge_process", "text"]
    command = [*module, *(places[which] for which in ("BASE", "LOCAL", "REMOTE", "MERGED"))]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode in (0, 1)


def _read(path: str) -> bytes | None:
    """None for what is no file: a tool may have left a FIFO, or a link to anything."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


# -- taking it back ---------------------------------------------------------------------------


def _undo(path: tuple[bytes, ...], which: str | None, force: bool, as_json: bool) -> int:
    if len(path) != 1:
        raise click.UsageError("--undo takes one PATH")
    if which not in (None, "local", "server"):
        raise click.UsageError("with --undo, --keep says which version comes back: local or server")
    params = {key: value for key, value in (("which", which), ("force", force)) if value}
    reply = about(path[0], "undo", params)
    if as_json:
        show.as_json(reply)
        return 0
    names = {"local": "our version", "server": "the server's version", "current": "what it held"}
    what = names.get(str(reply.get("which")), "the version")
    line = f"{text_of(path[0])}: {what} from before {reply.get('why')!r} is back"
    if not reply.get("made") and reply.get("content", True):
        line += "; what it held until now is in the history"
    click.echo(show.printable(line))
    for left in reply.get("left") or []:
        show.complain(f"{left}: only a part of it was ever here; that stays in the history")
    return 0


def _history(path: tuple[bytes, ...], as_json: bool) -> int:
    if len(path) > 1:
        raise click.UsageError("--history takes one PATH, or none")
    found: list[dict[str, Any]] = []
    for mount, inner in in_question(None, path[0] if path else None):
        reply = request(mount, "history", {"path": inner} if inner else {})
        found += [{"mountpoint": shown(mount), **item} for item in reply.get("history", [])]
    if as_json:
        show.as_json({"history": found})
        return 0
    if not found:
        click.echo("nothing was given up, or it is culled by now")
    for item in found:
        place = os.path.join(item["mountpoint"], item["path"])
        size = show.size(item["size"]) if item.get("content", True) else "no content"
        text = f"{place}  {item['which']}, {size}, given up"
        click.echo(show.printable(f"{text} {show.ago(item['kept_ns'])}: {item['why']}"))
    return 0
