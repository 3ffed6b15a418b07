"""Guarded mutations against another client that never stops writing.

Every revision has a content of its own, and both sides keep account of what they displaced.
A revision is *lost* if nobody displaced it knowingly and it stands nowhere at the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from case import Case

from awayfs.core.errors import Implausible, NotFound, Refused
from awayfs.core.types import ABSENT, Attributes, Committed, Entry, Expected

SECONDS = float(os.environ.get("AWAYFS_STRESS_SECONDS", "2.5"))
WIDTH = 16
HAMMER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hammer.py")


@dataclass
class Account:
    """What became of every revision."""

    ours: list[str] = field(default_factory=list)
    displaced_by_us: set[str] = field(default_factory=set)
    theirs: dict[str, str] = field(default_factory=dict)
    tries: int = 0

    def lost(self, standing: set[str]) -> set[str]:
        """Revisions that nobody put an end to knowingly and that stand nowhere."""
        known = self.displaced_by_us | set(self.theirs.values()) | standing
        return (set(self.theirs) | set(self.ours)) - known

    def late(self) -> set[str]:
        """Theirs, written into a file that we had moved aside: each must have been kept."""
        return {new for new, before in self.theirs.items() if before in self.displaced_by_us}


async def hammer(mode: str, path: bytes, account: Account) -> None:
    """Run the other client to its end and take down what it did."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, HAMMER, mode, os.fsdecode(path), str(SECONDS), stdout=-1
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    for line in output.decode().splitlines():
        new, displaced = line.split(" ", 1)
        account.theirs[new] = displaced


async def observe(case: Case, path: bytes) -> tuple[str, Expected] | None:
    """A content and the precondition that stands for it, None where that cannot be had now."""
    try:
        before = await case.remote.stat(path)
        content, entry = await case.content(path)
        if before.weak and not case.connected.capabilities.stable_ids:
            digest = await case.remote.digest(path)
            again, entry = await case.content(path)
            if again != content or digest.entry.token != entry.token:
                return None
    except (NotFound, Implausible, Refused):
        return None
    if before.token != entry.token:
        return None
    return content.decode(), Expected(entry.token, entry.file_id, entry.kind)


async def against(
    case: Case, mode: str, act: Callable[[Case, Account, int], Awaitable[None]]
) -> Account:
    """``act`` over and over while the other client writes."""
    account = Account()
    other = asyncio.create_task(hammer(mode, case.at(b"f"), account))
    while not other.done():
        account.tries += 1
        await act(case, account, account.tries)
    await other
    return account


def judge(case: Case, account: Account, name: str) -> None:
    """Nothing lost, nothing left over."""
    standing = {data.decode() for data in case.contents().values()}
    print(
        f"{name}: {len(account.theirs)} theirs, {account.tries} tries,"
        f" {len(account.displaced_by_us)} displaced by us, lost {account.lost(standing)},"
        f" names {len(case.names())}"
    )
    assert account.lost(standing) == set()
    assert account.late() <= standing
    assert not [n for n in case.names() if n.startswith(b".awayfs-") and n.endswith(b".old")]
    assert account.displaced_by_us, "the race was never won: the test shows nothing"


async def _replace(case: Case, account: Account, number: int) -> None:
    seen = await observe(case, b"f")
    if seen is None:
        return
    new = f"r{number:0{WIDTH - 1}d}"
    outcome = await case.save(f"op{number}", b"f", new.encode(), seen[1])
    if isinstance(outcome, Committed):
        account.ours.append(new)
        account.displaced_by_us.add(seen[0])
    else:
        await case.remote.discard_staged(f"op{number}", b"")


async def _put(case: Case, account: Account, number: int) -> None:
    seen = await observe(case, b"f")
    if seen is None:
        return
    op, new = f"op{number}", f"p{number:0{WIDTH - 1}d}"
    outcome = await case.remote.put(op, b"f", new.encode(), Attributes(), seen[1])
    if isinstance(outcome, Committed):
        account.ours.append(new)
        account.displaced_by_us.add(seen[0])
    else:
        await case.remote.discard_staged(op, b"")


@pytest.mark.slow
@pytest.mark.parametrize("act", [_replace, _put])
@pytest.mark.parametrize("mode", ["rename", "inplace"])
def test_replace_against_a_writer(run, mode, act):
    async def body(case: Case) -> None:
        case.write(b"f", b"start".ljust(WIDTH, b"."))
        account = await against(case, mode, act)
        judge(case, account, f"{act.__name__}/{mode}")

    run(body)


async def _remove(case: Case, account: Account, number: int) -> None:
    seen = await observe(case, b"f")
    if seen is None:
        return
    if isinstance(await case.remote.remove(f"op{number}", b"f", seen[1]), Committed):
        account.displaced_by_us.add(seen[0])


async def _remove_and_create(case: Case, account: Account, number: int) -> None:
    await _remove(case, account, number)
    new = f"c{number:0{WIDTH - 1}d}"
    if isinstance(await case.save(f"n{number}", b"f", new.encode(), ABSENT), Committed):
        account.ours.append(new)
    else:
        await case.remote.discard_staged(f"n{number}", b"")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rename", "inplace", "create"])
def test_remove_against_a_writer(run, mode):
    async def body(case: Case) -> None:
        case.write(b"f", b"start".ljust(WIDTH, b"."))
        act = _remove if mode == "create" else _remove_and_create
        account = await against(case, mode, act)
        judge(case, account, f"remove/{mode}")

    run(body)


async def _rename(case: Case, account: Account, number: int) -> None:
    seen = await observe(case, b"f")
    if seen is None:
        return
    new = f"m{number:0{WIDTH - 1}d}"
    source = b"source-%d" % number
    case.write(source, new.encode())
    entry: Entry = await case.remote.stat(source)
    expected = Expected(entry.token, entry.file_id, entry.kind)
    outcome = await case.remote.rename(f"op{number}", source, b"f", expected, seen[1])
    if isinstance(outcome, Committed):
        account.ours.append(new)
        account.displaced_by_us.add(seen[0])
    elif source in case.names():
        assert case.read(source) == new.encode()
        os.unlink(case.at(source))
    else:
        # The other wrote into ours in the moment that it stood there: theirs keeps the name.
        account.ours.append(new)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rename", "inplace"])
def test_rename_over_against_a_writer(run, mode):
    async def body(case: Case) -> None:
        case.write(b"f", b"start".ljust(WIDTH, b"."))
        account = await against(case, mode, _rename)
        judge(case, account, f"rename/{mode}")

    run(body)
