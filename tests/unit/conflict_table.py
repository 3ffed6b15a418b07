"""What happens when both sides changed: the rows of the tables in ``docs/CONFLICTS.md``.

Each row names the cases of ``test_core_decide`` that prove it. ``test_conflict_table`` holds the
document to the rows, the rows to the cases, and the cases to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settled:
    """A row of what needs no decision; without cases it is no decision of replay's."""

    here: str
    there: str
    outcome: str
    cases: tuple[str, ...] = ()

    def line(self) -> str:
        """As the document has it."""
        return f"| {self.here} | {self.there} | {self.outcome} |"


@dataclass(frozen=True)
class Kept:
    """A row of what is a conflict, and what each decision does."""

    kind: str
    sides: str
    meanwhile: str
    local: str
    server: str
    both: str
    cases: tuple[str, ...]

    def line(self) -> str:
        """As the document has it."""
        cells = (self.kind, self.sides, self.meanwhile, self.local, self.server, self.both)
        return f"| {' | '.join(cells)} |"


SETTLED = [
    Settled(
        "wrote a file",
        "wrote the same content",
        "one file; the server's time is taken",
        ("store: same content on both sides", "store: both emptied it", "store retried: by digest"),
    ),
    Settled(
        "wrote a file",
        "changed its mode, owner or time, not its content",
        "ours goes over it; the attributes stay",
        ("store: attributes changed there", "store: editor's save there with equal content"),
    ),
    Settled(
        "created a file, link, special file or directory",
        "created the same",
        "one object; two directories are merged, with the server's rights",
        (
            "create: equal content is adopted",
            "create: both empty",
            "mkdir: a directory is adopted",
            "symlink: same target",
            "fifo: a fifo is adopted",
            "device: same numbers",
            "link: already this file",
        ),
    ),
    Settled("removed", "removed", "gone", ("remove: both removed",)),
    Settled(
        "removed",
        "unchanged, or only its attributes changed",
        "gone",
        ("remove: unchanged", "remove: only attributes changed there", "rmdir: empty"),
    ),
    Settled(
        "removed",
        "a thing of another kind, or one more name of another file, under the name",
        "the server's; what was removed is gone on both sides",
        ("remove: a directory there", "rmdir: a file there"),
    ),
    Settled(
        "renamed a file",
        "made its name one more of another file",
        "that name of the other file is renamed",
    ),
    Settled(
        "removed one of a file's names in the share",
        "wrote the file",
        "both: it stays under its other names",
        ("remove: one of several names, changed",),
    ),
    Settled("unchanged", "anything", "the server's"),
    Settled(
        "wrote a file", "renamed it, or a directory above it", "the change goes to the new name"
    ),
    Settled(
        "wrote through one name of a hard-linked file",
        "saved over another of its names",
        "both: that name is a file of its own",
    ),
    Settled(
        "renamed or removed one name of a hard-linked file",
        "saved over that name",
        "both: the saved file has the new name, or is shown again;"
        " the other names are as they were",
    ),
    Settled(
        "renamed a file or directory",
        "wrote the file, or files in it",
        "both",
        (
            "rename: edited there",
            "rename: saved by an editor there",
            "rename of a directory: free",
            "exchange: both there",
        ),
    ),
    Settled(
        "renamed",
        "renamed to the same name",
        "one rename",
        ("rename: same rename there", "exchange: already crossed"),
    ),
    Settled(
        "renamed a file over another",
        "changed only attributes of that one, removed it, or wrote there what goes over it",
        "ours has the name",
        (
            "rename over: only attributes changed",
            "rename over: the displaced one was removed there",
            "rename over: same edit on both sides",
            "rename over a directory: empty",
        ),
    ),
    Settled("linked a file", "wrote it", "both", ("link: source edited there",)),
    Settled(
        "created in a directory",
        "renamed or moved that directory",
        "created where it is now, before it is decided about, too",
    ),
    Settled(
        "created in a directory",
        "removed that directory",
        "the directories come back, holding only what was created; the rest of the removal stands",
    ),
    Settled(
        "removed a directory with all in it",
        "wrote or created a file in it",
        "that file and the directories above it stay (*remove/update* for a file that was written);"
        " the rest is gone",
    ),
    Settled(
        "changed mode or owner",
        "wrote the content, or changed another attribute",
        "both",
        (
            "chmod: content edited there",
            "chmod: same mode there",
            "chmod: half of it is there",
            "chown: mode changed there",
        ),
    ),
    Settled(
        "set an extended attribute",
        "set another one, or the same one to the same value",
        "both",
        ("xattr: another changed there", "xattr: same there", "xattr: removed on both sides"),
    ),
    Settled(
        "changed times",
        "wrote the content",
        "the server's time: ours told of content that is gone",
        ("utimes: edited there, the time would lie", "utimes and chmod: edited there"),
    ),
    Settled(
        "changed a directory's times",
        "created something in it",
        "ours",
        ("utimes of a directory: children came there",),
    ),
    Settled("moved directory A into B", "moved B into A", "our move, with B made anew"),
    Settled(
        "removed directory A/C, moved A into B",
        "moved B into A/C",
        "the same, and C is shown again (*remove/update*)",
    ),
    Settled(
        "removed a name, put something else there",
        "changed what was removed",
        "a conflict of the new thing (see *type*, *name/name*)",
    ),
    Settled(
        "anything, and the answer was lost",
        "did it",
        "done once: what stands there is known as ours",
        (
            "create retried: what was staged stands there",
            "create retried: the empty file is ours",
            "store retried: ours",
            "store retried: ours, and edited there since",
            "store retried: ours by that digest, though edited here again since",
            "link retried, no ids",
            "remove retried: absent",
            "rename retried: done, id tells",
            "rename retried: done, then the old name taken",
            "rename retried: done, no ids",
        ),
    ),
]

KEPT = [
    Kept(
        "update/update",
        "wrote, or renamed another file over it × wrote differently",
        "name shows ours; all variants kept",
        "ours replaces the server's",
        "the server's; ours is given up",
        "the server's keeps the name; ours becomes a conflict copy",
        (
            "store: content changed there",
            "store: size tells",
            "store: weak token, other digest",
            "store: weak, never read, another id",
            "store: token differs, never read",
            "store retried: somebody's edit within the same second",
            "store retried: somebody's edit under another change time",
            "store retried: somebody's edit, whatever its time",
            "store retried: of another size than what went by one call",
            "rename over: the displaced one was edited",
        ),
    ),
    Kept(
        "update/remove",
        "wrote, renamed, linked or set attributes × removed",
        "ours stays here",
        "made anew on the server, directories with all of them that is cached here",
        "gone here too",
        "as local",
        (
            "create: the directory was removed",
            "link: source removed",
            "link: source replaced by a directory",
            "store: removed there",
            "store: moved there",
            "store: directory removed there",
            "chmod: removed there",
            "xattr: removed there",
            "rename: removed there",
            "twins, rename: removed there, and another one made",
            "rename: a directory there",
            "rename: another directory there",
            "rename retried: gone, and a stranger at the target",
            "rename: new directory removed there",
            "exchange: one removed there",
        ),
    ),
    Kept(
        "remove/update",
        "removed × wrote, or filled",
        "the server's is shown again",
        "removed after all",
        "the server's",
        "the server's",
        (
            "remove: changed there",
            "remove: changed, never read here",
            "remove: changed, its other name is outside of the share",
            "rmdir: unknown children",
            "remove a symlink: retargeted there",
        ),
    ),
    Kept(
        "remove/update",
        "renamed a directory over another × filled that one",
        "ours",
        "the server's becomes a conflict copy, ours takes the name",
        "our rename is undone",
        "the server's keeps the name, ours gets a copy's name",
        ("rename over a directory: filled there",),
    ),
    Kept(
        "name/name",
        "created, renamed or linked × something else has the name (of what was renamed on both"
        " sides, too), or one that the server takes for the same",
        "name shows ours",
        "the server's becomes a conflict copy",
        "ours is given up",
        "the server's keeps the name; ours becomes a conflict copy",
        (
            "create: other content",
            "create: other size needs no digest",
            "create: an empty stranger is not ours",
            "create retried: a stranger still is one",
            "create: a twin by case on a server that ignores it",
            "create: one with equal content that was renamed on both sides is there",
            "mkdir: one that was renamed on both sides is there",
            "symlink: other target",
            "device: other numbers",
            "link: taken by a stranger",
            "twins, link: another one",
            "twins, link: the file is gone, and what has the name is another one",
            "twins, rename by case alone: another file",
            "store: never there, taken",
            "rename: taken by a stranger",
            "rename retried: not done, edited there since, and a stranger at the target, no ids",
            "rename retried: not done, and a copy of it at the target, no ids",
            "rename over: a stranger where ours never was",
        ),
    ),
    Kept(
        "rename/rename",
        "renamed × renamed to another name",
        "our name here, the server's there",
        "ours",
        "the server's",
        "the server's",
        (
            "rename: renamed there",
            "rename: renamed there, name taken again",
            "rename: renamed there, its name taken by a directory",
            "rename: renamed there, what it was to go into seen inside of it before",
        ),
    ),
    Kept(
        "type",
        "one kind of thing × another kind",
        "name shows ours",
        "the server's becomes a conflict copy",
        "ours is given up, with what was made in it",
        "one of the two becomes a conflict copy",
        (
            "mkdir: a file is there",
            "create: a directory is there",
            "create: the directory was replaced",
            "fifo: a file is there",
            "link: taken by a directory",
            "store: a directory there",
            "chmod: a directory there",
            "rename over: a directory stands there",
            "exchange: one is a directory now",
            "exchange: the other is a directory now",
        ),
    ),
    Kept(
        "attribute",
        "set × set to another value",
        "ours",
        "ours",
        "the server's",
        "the server's",
        (
            "chmod: other mode there",
            "chown: owner changed there",
            "xattr: changed on both sides",
        ),
    ),
    Kept(
        "refused",
        "anything × the server said no, or cannot hold it",
        "ours stays here",
        "tries again",
        "ours is given up",
        "not offered",
        (
            "create: read-only",
            "create: name too long",
            "create: kind unsupported",
            "rename: name too long",
            "rename: into what is inside of it there",
        ),
    ),
]
