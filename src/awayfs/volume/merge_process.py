"""Merging text in a process of its own, which can be killed: ``text`` or ``union``.

    python -m awayfs.volume.merge_process STRATEGY BASE LOCAL SERVER MERGED

Exit status 0: merged. 1: MERGED has markers where both sides changed the same. 2: not merged,
with the reason in one line on standard output. Nothing else of awayfs is imported.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from awayfs.core.merging import hunks_of, merge_text, merge_union, why_not_text

TROUBLE = 2
LARGEST_SPACE = 512 << 20
"""Bytes of memory; the largest of ordinary texts take a tenth of it."""


def main(arguments: list[str]) -> int:
    """Merge; the exit status."""
    strategy, *places, target = arguments
    base, local, server = (_read(place) for place in places)
    for why in filter(None, map(why_not_text, (base, local, server))):
        print(why)
        return TROUBLE
    try:
        answer = aligned(*places)
    except OSError as error:
        print(f"diff3 (of the package diffutils) cannot be run: {error}")
        return TROUBLE
    merge = {"text": merge_text, "union": merge_union}[strategy]
    merged = merge(base, local, server, hunks_of(answer))
    with open(target, "xb") as file:
        file.write(merged.content)
    return 0 if merged.clean else 1


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def aligned(base: str, local: str, server: str) -> bytes:
    """What diff3(1) says of three files; OSError when it cannot be run or fails."""
    command = ["diff3", "--text", "--", local, server, base]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode not in (0, 1):
        raise OSError(done.stderr.decode(errors="replace").strip() or "it failed")
    return done.stdout


def bounded(arguments: list[str]) -> int:
    """``main`` in a bounded space: millions of empty lines are a text, too."""
    resource.setrlimit(resource.RLIMIT_AS, (LARGEST_SPACE, LARGEST_SPACE))
    try:
        return main(arguments)
    except MemoryError:
        print("it has too many lines")
        return 2


if __name__ == "__main__":
    sys.exit(bounded(sys.argv[1:]))
