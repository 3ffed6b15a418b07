"""``awayfs fsck``: the check of a volume's state while nobody has it mounted.

``python -m awayfs.daemon.fsck DIRECTORY [--repair] [--json]``; a process of its own, because only
the daemon may know how the state looks. Opening does what every start does: it finishes what a
crash cut off, and sets a damaged database aside. Exit status 0: all is well, or was made so; 1:
something is wrong; 2: not understood.
"""

from __future__ import annotations

import json
import os
import sys

from awayfs.core.errors import StoreError, StoreInUse
from awayfs.store import fsck
from awayfs.store.store import Store


def main(arguments: list[str]) -> int:
    """Check, print the findings, one a line."""
    paths = [a for a in arguments if not a.startswith("--")]
    options = {a for a in arguments if a.startswith("--")}
    if len(paths) != 1 or options - {"--repair", "--json"}:
        print("awayfs: fsck: DIRECTORY [--repair] [--json]", file=sys.stderr)
        return 2
    try:
        store = Store.open(paths[0])
    except StoreInUse:
        return _fail(paths[0], "is in use; unmount it first")
    except StoreError as error:
        return _fail(paths[0], str(error))
    try:
        return _check(store, repair="--repair" in options, as_json="--json" in options)
    except OSError as error:
        return _fail(paths[0], error.strerror or str(error))
    finally:
        store.close()


def _fail(path: str, why: str) -> int:
    name = os.path.basename(path)
    print(f"awayfs: {why if why.startswith('the state') else f'{name}: {why}'}", file=sys.stderr)
    return 1


def _check(store: Store, *, repair: bool, as_json: bool) -> int:
    salvaged = store.salvaged
    found = fsck.check(store, repair=repair)
    lost = [problem for problem in found if not problem.repaired and not problem.leftover]
    if as_json:
        problems = [
            {
                "rule": problem.rule,
                "node": problem.node,
                "text": problem.text,
                "leftover": problem.leftover,
                "repaired": problem.repaired,
            }
            for problem in found
        ]
        report = salvaged.reason if salvaged is not None else None
        print(json.dumps({"problems": problems, "salvaged": report}, indent=2))
    else:
        if salvaged is not None:
            print(f"salvaged: the database was damaged ({salvaged.reason}) and set aside")
        for problem in found:
            state = "repaired" if problem.repaired else "leftover" if problem.leftover else "wrong"
            print(f"{state}: {problem.text}".encode("ascii", "backslashreplace").decode())
        print(f"{len(found)} found, {sum(p.repaired for p in found)} repaired")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
