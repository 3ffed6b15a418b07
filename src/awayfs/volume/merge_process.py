"""Merging text in a process of its own, which can be killed: ``text`` or ``union``.

    python -m awayfs.volume.merge_process STRATEGY BASE LOCAL SERVER MERGED

Exit status 0: merged. 1: MERGED has markers where both sides changed the same. 2: not merged,
with the reason in one line on standard output. Nothing else of awayfs is imported.
"""

from __future__ import annotations

import sys

from awayfs.core.merging import merge_text, merge_union, why_not_text


def main(arguments: list[str]) -> int:
    """Merge; the exit status."""
    strategy, *places, target = arguments
    variants: list[bytes] = []
    for place in places:
        with open(place, "rb") as file:
            variants.append(file.read())
        why = why_not_text(variants[-1])
        if why is not None:
            print(why)
            return 2
    merge = {"text": merge_text, "union": merge_union}[strategy]
    merged = merge(*variants)
    with open(target, "xb") as file:
        file.write(merged.content)
    return 0 if merged.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
