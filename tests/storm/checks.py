"""What must hold when a storm is over, and nothing is left to send or to decide."""

from __future__ import annotations

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.harness import Client, tree
from tests.storm.actors import content
from tests.storm.ending import accept_deletions
from tests.storm.ledger import Ledger, block, counted, torn
from tests.storm.plan import FRESH
from tests.storm.world import World

STALE_AFTER_S, LONG_STALE_AFTER_S = 2.2, 4.0
"""What was seen is looked at anew after that: with the usual mount options, and with others."""
LOOKS = 3
SHOWN = 12
REST_S = 128.0
"""How long all may take beside the storm itself."""
REPEATED = 15
"""So often one and the same record may be told of in a log, and no more."""
RANGES = "known-ranges"
"""A note beside a partial conflict copy: the one file that awayfs writes by itself."""
RECORD = re.compile(r"(?:WARNING|ERROR) awayfs\.\S+: (record \d+: .{0,80})")


def check(world: World) -> None:
    """All of it; ends with nothing mounted."""
    usual = FRESH in world.plan.options
    time.sleep(STALE_AFTER_S if usual else LONG_STALE_AFTER_S)
    _same_trees(world)
    _nothing_lost(world)
    if world.record.elapsed > world.plan.seconds + REST_S:
        world.record.problem("it took", round(world.record.elapsed), "s")
    _second_sync_does_nothing(world)
    for client in world.clients:
        _sound_state(world, client)
    _nothing_left_over(world)
    for client in world.clients:
        _quiet_log(world, client)


# -- the mounts show what the server has ----------------------------------------------------


def _same_trees(world: World) -> None:
    differences: list[str] = []
    for look in range(LOOKS):
        for client in world.clients:
            _answer_a_brake(world, client)
        differences = _differences(world)
        if not differences:
            return
        world.record.log("DIFFERENT, look", look, differences[:5])
        time.sleep(3)
    shown = "\n   ".join(differences[:SHOWN])
    world.record.problem("the mounts differ in", len(differences), "places:", shown)


def _answer_a_brake(world: World, client: Client) -> None:
    try:
        if accept_deletions(world, client, client.ask("status")["cause"] or "", "--wait"):
            time.sleep(2)
    except (OSError, AssertionError) as error:
        world.record.log("brake?", error)


def _differences(world: World) -> list[str]:
    grain, found = world.server.time_grain_ns, []
    wanted = tree(world.server.root, mtime_grain_ns=grain)
    attributes = _attributes(world.server.root) if world.plan.kind == "dir" else {}
    for client in world.clients:
        try:
            shown = tree(client.mountpoint, mtime_grain_ns=grain)
        except OSError as error:
            found.append(f"{client.name} cannot be read: {error}")
            continue
        for path in sorted(wanted.keys() | shown.keys()):
            right, seen = (_comparable(world, side.get(path)) for side in (wanted, shown))
            if right != seen:
                found.append(f"{client.name} {path!r}: server {right}, mount {seen}")
        if attributes:
            seen_attributes = _attributes(client.mountpoint)
            for at, right in attributes.items():
                seen = seen_attributes.get(at)
                if right != seen:
                    found.append(f"{client.name} attributes {at!r}: server {right}, mount {seen}")
    return found


def _comparable(world: World, facts: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """What ``tree`` tells of one object. SFTP tells of no link groups, and times of directories
    are set by whoever made the last entry.
    """
    if facts is None or world.plan.kind == "dir":
        return facts
    return facts[:5] if len(facts) > 3 else facts[:2]


def _attributes(root: str) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    top = os.fsencode(root)
    for path in _below(top):
        try:
            found[os.path.relpath(path, top)] = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if not name.startswith("user.awayfs")
            }
        except OSError as error:
            found[path] = str(error)  # by its whole path: on no side it is the same
    return found


def _below(top: bytes) -> Iterator[bytes]:
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            yield os.path.join(directory, name)


# -- nothing is lost ------------------------------------------------------------------------


def _nothing_lost(world: World) -> None:
    """What is owed stands on the server, in lost+found, or in the history of what was decided."""
    found: Counter[bytes] = Counter()
    _count(world, world.server.root, found)
    missing = world.ledger.missing(found)
    for client in world.clients:
        _count(world, os.path.join(client.mountpoint, ".awayfs/lost+found"), found)
    lost = world.ledger.missing(found)
    world.record.log(
        *("owed", owed(world.ledger), "of", len(world.ledger.written)),
        *("missing on the server", len(missing), "lost", len(lost)),
    )
    for token, blocks in lost.items():
        places = _in_the_state(world, token)
        if any("/history/" in place for place in places):
            world.record.log("given up by a decision:", token, blocks, places)
            continue
        where = world.ledger.where[token]
        world.record.problem("LOST", token, blocks, "seen", found[token], where, "state:", places)


def owed(ledger: Ledger) -> int:
    """How many tokens must be somewhere."""
    return len(ledger.written.keys() - ledger.given_up.keys())


def _count(world: World, root: str, found: Counter[bytes]) -> None:
    """The most blocks of each token in one file; and what stands in a file without being one."""
    for path in _below(os.fsencode(root)):
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            data = content(path)
        except OSError as error:
            world.record.log("cannot be read:", path, error)
            continue
        found |= counted(data)
        rest = torn(data)
        if rest and os.fsencode(RANGES) not in os.path.basename(path):
            world.record.problem("torn:", path, rest[:80])


def _in_the_state(world: World, token: bytes) -> list[str]:
    """The files of the clients' states that have it."""
    found = []
    for client in world.clients:
        for path in _below(os.fsencode(os.path.join(client.state, "awayfs/volumes"))):
            try:
                if os.path.isfile(path) and block(token) in content(path):
                    found.append(os.fsdecode(path).removeprefix(world.base))
            except OSError:
                continue
    return found


# -- and all is quiet -----------------------------------------------------------------------


def _second_sync_does_nothing(world: World) -> None:
    before = _changes(world)
    for client in world.clients:
        world.command(client, "sync", client.mountpoint, "--wait")
    time.sleep(0.5)
    after = _changes(world)
    if after != before:
        paths = sorted(path for path, _ in before.items() ^ after.items())
        world.record.problem("a second sync changes", paths[:SHOWN])


def _changes(world: World) -> dict[bytes, tuple[int, int, int]]:
    found = {}
    for path in _below(os.fsencode(world.server.root)):
        status = os.lstat(path)
        found[path] = status.st_ino, status.st_ctime_ns, status.st_size
    return found


def _sound_state(world: World, client: Client) -> None:
    world.command(client, "umount", client.mountpoint)
    if client.is_mounted():
        time.sleep(1)
        world.command(client, "umount", client.mountpoint)
    (volume,) = os.listdir(os.path.join(client.state, "awayfs/volumes"))
    done = world.command(client, "fsck", volume)
    wrong = [line for line in done.stdout.splitlines() if not _is_well(line)]
    if done.returncode or wrong:
        world.record.problem("fsck:", client.name, done.returncode, wrong, done.stderr)


def _is_well(line: str) -> bool:
    """Whether a line of ``fsck`` is the count at its end, or about what costs room only."""
    return "found," in line or line.startswith("leftover: ")


def _nothing_left_over(world: World) -> None:
    """What awayfs puts on a server for a while is gone."""
    for path in _below(os.fsencode(world.server.root)):
        name = os.path.basename(path)
        if name.startswith(b".awayfs") and name not in (b".awayfs.toml", b".awayfs-volume"):
            world.record.problem("left over on the server:", path)


def _quiet_log(world: World, client: Client) -> None:
    """No exception that nobody expected, and nothing tried again and again."""
    log = client.log
    for line, times in Counter(RECORD.findall(log)).items():
        if times > REPEATED:
            world.record.problem("told", times, "times:", client.name, line)
    at = log.find("Traceback")
    if at >= 0:
        world.record.problem("an exception:", client.name, log[max(0, at - 300) : at + 1500])
