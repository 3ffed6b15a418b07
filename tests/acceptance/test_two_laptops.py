"""A week of work on one share with two laptops, each away from the server by day.

Ann and Ben have the share mounted, pinned, and work offline; in the evening Ann comes online
first, then Ben. What is in conflict then is compared with what may be, decided as the script
says, and all three trees are compared byte by byte. Each day goes on from the one before.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from awayfs.control.client import Client as ControlClient
from tests.harness import Client, assert_same_tree, make_server, needs_fuse, run, tree

pytestmark = [*needs_fuse, pytest.mark.slow]

GIT = (
    "git",
    *("-c", "user.name=A", "-c", "user.email=a@example.org"),
    *("-c", "init.defaultBranch=main", "-c", "init.templateDir="),
    *("-c", "safe.directory=*", "-c", "gc.auto=0"),
)
PHOTOS = 50
FRESH_S = 1
PLACES = {"ann": "at home", "ben": "train"}
"""Of different lengths: SFTP tells two files of one size and second by nothing."""
Decisions = dict[str, str]
"""What is decided, by a pattern of the conflict's path."""


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


class Laptop:
    """One person's mount."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = client.name
        self.path = client.path

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the daemon, without a process of its own for it."""
        (path,) = glob.glob(f"{self.client.runtime}/awayfs/*.sock")
        with ControlClient(path) as control:
            return control.call(method, params, timeout=60)

    def conflicts(self) -> list[dict[str, Any]]:
        """What waits for a decision."""
        return list(self.ask("conflicts")["conflicts"])

    def git(self, where: str, *args: str) -> str:
        """Run git in a directory of the mount."""
        return run(*GIT, "-C", self.path(where), *args).strip()

    def commit(self, where: str, name: str, text: str) -> str:
        """Commit one file; the commit's id."""
        write(self.path(where, name), text)
        self.git(where, "add", name)
        self.git(where, "commit", "-q", "-m", f"{self.name}: {name}")
        return self.git(where, "rev-parse", "HEAD")

    def open_document(self, path: str) -> str:
        """The lock file that an office program puts beside what it has open; its path."""
        directory, name = os.path.split(path)
        lock = self.path(directory, f".~lock.{name}#")
        write(lock, f",{self.name},{PLACES[self.name]},;")
        return lock

    def edit_document(self, path: str, part: str, text: str) -> None:
        """Add a part to a zip file, saved as office programs do: anew, beside, renamed over."""
        lock, shown = self.open_document(path), self.path(path)
        parts = {part: text}
        with zipfile.ZipFile(shown) as old:
            parts = {n: old.read(n).decode() for n in old.namelist()} | parts
        save_document(shown + ".tmp", parts)
        shutil.copymode(shown, shown + ".tmp")
        os.replace(shown + ".tmp", shown)
        os.unlink(lock)


def save_document(path: str, parts: dict[str, str]) -> None:
    """A zip file, on the disk when this returns."""
    with open(path, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in parts.items():
                archive.writestr(name, text)
        file.flush()
        os.fsync(file.fileno())


def document(path: str) -> dict[str, str]:
    """The parts of a zip file that is whole."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def photo(number: int) -> bytes:
    """A picture of its own, a few KiB."""
    return f"photo {number} ".encode() * 400


class Week:
    """The share, both laptops, and the evenings."""

    def __init__(self, root: str, ann: Laptop, ben: Laptop) -> None:
        self.root, self.ann, self.ben = root, ann, ben
        self.has_ids = ann.client.server.scheme == "dir"

    def apart(self) -> tuple[Laptop, Laptop]:
        """The morning: both leave, with everything on board."""
        for laptop in (self.ann, self.ben):
            laptop.ask("offline")
        return self.ann, self.ben

    def evening(self, decisions: Decisions | None = None) -> dict[str, str]:
        """Ann comes online, then Ben, who decides; the kinds of his conflicts by path."""
        self.ann.ask("online")
        self.ann.client.sync()
        assert self.ann.conflicts() == [], "nobody had been before her"
        self.ben.ask("online")
        self.ben.client.sync(check=False)
        found = self.decide(self.ben, decisions or {})
        self.compare()
        return found

    def decide(self, laptop: Laptop, decisions: Decisions) -> dict[str, str]:
        """Decide what is in conflict until nothing is; a conflict without a rule is too many."""
        found: dict[str, str] = {}
        for _ in range(3):
            conflicts = laptop.conflicts()
            if not conflicts:
                break
            found |= {c["path"]: c["kind"] for c in conflicts}
            for keep, paths in by_decision(conflicts, decisions).items():
                places = [laptop.path(path) for path in paths]
                laptop.client.awayfs("resolve", "--keep", keep, *places)
            laptop.client.sync(check=False)
        assert laptop.conflicts() == []
        return found

    def hand_over(self, laptop: Laptop) -> None:
        """Wait until what somebody did is on the server, and must be seen by the other."""
        laptop.client.sync()
        time.sleep(FRESH_S + 0.1)  # what was seen for so long counts as what there is

    def compare(self) -> None:
        """Everybody sees everything, and it is the same; nothing waits, nothing is left over."""
        self.ann.client.sync()
        self.hand_over(self.ben)
        for laptop in (self.ann, self.ben):
            laptop.client.awayfs("hoard", laptop.client.mountpoint)
        for laptop in (self.ann, self.ben):
            assert laptop.conflicts() == []
            assert laptop.ask("status")["pending"]["records"] == 0
            mine = whole(laptop.client.mountpoint, self.has_ids)
            assert_same_tree(mine, whole(self.root, self.has_ids))
        left = [n for _, ds, fs in os.walk(self.root) for n in ds + fs if n.startswith(".awayfs-")]
        assert left == []


def by_decision(conflicts: Iterable[dict[str, Any]], decisions: Decisions) -> dict[str, list[str]]:
    """The paths of conflicts by what is to be done with them."""
    sorted_out: dict[str, list[str]] = {}
    for conflict in conflicts:
        keep = next((k for p, k in decisions.items() if fnmatch.fnmatch(conflict["path"], p)), None)
        assert keep is not None, f"not foreseen: {conflict}"
        paths = sorted_out.setdefault(keep, [])
        if conflict["path"] not in paths:
            paths.append(conflict["path"])
    return sorted_out


def whole(root: str, has_ids: bool) -> dict[str, Any]:
    """A tree; without ids nobody is told which names are one file, and times are in seconds."""
    found = tree(root, mtime_grain_ns=10**9, directories_mtime=False)
    return found if has_ids else {path: facts[:5] for path, facts in found.items()}


@pytest.fixture(params=["dir", "sftp"])
def week(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Week]:
    """A share with something on it, and two laptops that have seen all of it."""
    base = str(tmp_path)
    server = make_server(request.param, base)
    fill(server.root)
    clients = [Client(base, server, name) for name in ("ann", "ben")]
    try:
        for client in clients:
            client.mount(f"fresh={FRESH_S}")
            client.awayfs("pin", client.mountpoint)
        yield Week(server.root, *map(Laptop, clients))
    finally:
        for client in clients:
            with suppress(Exception):
                client.close()
        server.close()


def fill(root: str) -> None:
    """What is on the share on Monday morning."""
    for place in ("photos/IMG_0001", "photos/2023", "drafts", "old/letters", "shared", "work"):
        os.makedirs(f"{root}/{place}")
    for number in range(PHOTOS):
        with open(f"{root}/photos/IMG_0001/DSC{number:04}.jpg", "wb") as file:
            file.write(photo(number))
    for number in range(8):
        write(f"{root}/photos/2023/{number}.jpg", f"2023 {number}")
        write(f"{root}/drafts/{number}.txt", f"draft {number}\n")
        write(f"{root}/old/letters/{number}.txt", f"letter {number}\n")
    save_document(f"{root}/report.odt", {"content.xml": "<p>one</p>", "meta.xml": "<m/>"})
    run(*GIT, "init", "-q", "--bare", f"{root}/project.git")
    run(*GIT, "init", "-q", f"{root}/shared")
    write(f"{root}/shared/README", "shared\n")
    run(*GIT, "-C", f"{root}/shared", "add", "README")
    run(*GIT, "-C", f"{root}/shared", "commit", "-q", "-m", "first")


def test_a_week_of_work(week: Week) -> None:
    """Monday to Friday, and a look at it all on Saturday."""
    monday_clones(week)
    monday_commits(week)
    tuesday_one_working_tree(week)
    wednesday_the_document(week)
    thursday_the_photos(week)
    friday_tidying_up(week)
    saturday_nothing_is_left_to_do(week)


def monday_clones(week: Week) -> None:
    """Ann publishes the project; each has a clone on the share."""
    ann, ben = week.ann, week.ben
    run(*GIT, "clone", "-q", ann.path("project.git"), ann.path("work/ann"))
    ann.commit("work/ann", "main.c", "int main() { return 0; }\n")
    ann.git("work/ann", "push", "-q", "origin", "HEAD:main")
    week.hand_over(ann)
    run(*GIT, "clone", "-q", "-b", "main", ben.path("project.git"), ben.path("work/ben"))
    ben.client.sync()
    week.compare()


def monday_commits(week: Week) -> None:
    """Commits on both, offline; merged through the bare repository, one after the other."""
    ann, ben = week.apart()
    for number in range(3):
        ann.commit("work/ann", f"ann{number}.c", f"int ann{number};\n")
        ben.commit("work/ben", f"ben{number}.c", f"int ben{number};\n")
    assert week.evening() == {}
    ann.git("work/ann", "remote", "set-url", "origin", "../../project.git")
    ben.git("work/ben", "remote", "set-url", "origin", "../../project.git")
    ann.git("work/ann", "push", "-q", "origin", "HEAD:main")
    week.hand_over(ann)
    ben.git("work/ben", "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
    ben.git("work/ben", "push", "-q", "origin", "HEAD:main")
    week.hand_over(ben)
    ann.git("work/ann", "pull", "-q", "--ff-only", "origin", "main")
    ann.client.sync()
    week.compare()
    for where in ("work/ann", "work/ben", "project.git"):
        assert "missing" not in ben.git(where, "fsck", "--full", "--strict")
    assert ann.git("work/ann", "rev-parse", "HEAD") == ben.git("work/ben", "rev-parse", "HEAD")
    assert ann.git("work/ann", "status", "--porcelain") == ""


def tuesday_one_working_tree(week: Week) -> None:
    """Both commit in one working tree. Ann's branch stands; Ben's commit is there to be merged."""
    ann, ben = week.apart()
    hers = ann.commit("shared", "ann.txt", "from ann\n")
    his = ben.commit("shared", "ben.txt", "from ben\n")
    found = week.evening({"shared/.git/*": "server"})
    assert "shared/.git/refs/heads/main" in found
    assert set(found.values()) <= {"update/update", "name/name"}, found
    for lock in glob.glob(ben.path("shared/.git/**/*.lock"), recursive=True):
        os.unlink(lock)  # his index and branch, under the names that they were saved from
    assert ben.git("shared", "rev-parse", "HEAD") == hers
    assert ben.git("shared", "cat-file", "-t", his) == "commit"
    os.unlink(ben.path("shared/ben.txt"))  # as it was committed; the merge brings it back
    ben.git("shared", "merge", "-q", "--no-edit", his)
    ben.client.sync()
    week.compare()
    ann.git("shared", "update-index", "-q", "--refresh")
    assert ann.git("shared", "status", "--porcelain") == ""
    assert read(ann.path("shared/ben.txt")) == "from ben\n"
    ann.git("shared", "fsck", "--full", "--strict")
    ann.client.sync()
    week.compare()


def wednesday_the_document(week: Week) -> None:
    """Both save the same document; both keep theirs. Ben leaves it open at the end."""
    ann, ben = week.apart()
    ann.edit_document("report.odt", "ann.xml", "<p>hers</p>")
    ann.edit_document("report.odt", "ann2.xml", "<p>more</p>")
    ben.edit_document("report.odt", "ben.xml", "<p>his</p>")
    locks = [laptop.open_document("report.odt") for laptop in (ann, ben)]
    found = week.evening({"report.odt": "both", ".~lock*": "local"})
    assert found == {"report.odt": "update/update", ".~lock.report.odt#": "name/name"}
    (copy,) = [n for n in os.listdir(week.root) if n.startswith("report (conflict")]
    assert document(f"{week.root}/report.odt").keys() >= {"ann.xml", "ann2.xml"}
    assert document(f"{week.root}/{copy}").keys() >= {"ben.xml", "content.xml"}
    assert read(locks[0]) == ",ben,train,;"
    for name in [n for n in os.listdir(week.root) if n.startswith(".~lock")]:
        os.unlink(ben.path(name))
    week.evening()


def thursday_the_photos(week: Week) -> None:
    """Ann gives the folder a name; Ben adds to it and retouches two. Both sort last year's."""
    ann, ben = week.apart()
    os.rename(ann.path("photos/IMG_0001"), ann.path("photos/Summer"))
    os.mkdir(ann.path("photos/2023/spring"))
    for number in (0, 1):
        os.rename(
            ann.path(f"photos/2023/{number}.jpg"), ann.path(f"photos/2023/spring/{number}.jpg")
        )
    for number in range(PHOTOS, PHOTOS + 5):
        with open(ben.path(f"photos/IMG_0001/DSC{number:04}.jpg"), "wb") as file:
            file.write(photo(number))
    for number in (3, 4):
        with open(ben.path(f"photos/IMG_0001/DSC{number:04}.jpg"), "ab") as file:
            file.write(b"retouched")
    os.rename(ben.path("photos/2023"), ben.path("photos/last year"))
    found = week.evening({"photos/*": "local"})
    if week.has_ids:
        assert found == {}
        assert sorted(os.listdir(f"{week.root}/photos")) == ["Summer", "last year"]
        assert len(os.listdir(f"{week.root}/photos/Summer")) == PHOTOS + 5
        assert sorted(os.listdir(f"{week.root}/photos/last year/spring")) == ["0.jpg", "1.jpg"]
    seen = contents(f"{week.root}/photos")
    wanted = [photo(n) for n in range(PHOTOS + 5) if n not in (3, 4)]
    wanted += [photo(n) + b"retouched" for n in (3, 4)]
    assert set(wanted) <= seen, "a picture is missing"
    assert {f"2023 {n}".encode() for n in range(8)} <= seen


def contents(root: str) -> set[bytes]:
    """The content of every file below a directory."""
    found = set()
    for at, _, files in os.walk(root):
        for name in files:
            with open(os.path.join(at, name), "rb") as file:
                found.add(file.read())
    return found


def friday_tidying_up(week: Week) -> None:
    """Each removes what the other one works on; both do the same thing here and there."""
    ann, ben = week.apart()
    shutil.rmtree(ann.path("drafts"))
    shutil.rmtree(ann.path("old"))
    write(ann.path("minutes.txt"), "the same\n")
    os.mkdir(ann.path("plans"))
    write(ann.path("plans/ann.txt"), "a")
    with open(ben.path("drafts/1.txt"), "a") as file:
        file.write("edited\n")
    with open(ben.path("old/letters/2.txt"), "a") as file:
        file.write("edited\n")
    write(ben.path("drafts/new.txt"), "new\n")
    write(ben.path("minutes.txt"), "the same\n")
    os.mkdir(ben.path("plans"))
    write(ben.path("plans/ben.txt"), "b")
    found = week.evening({"drafts/1.txt": "local", "old/letters/2.txt": "server"})
    assert found == {"drafts/1.txt": "update/remove", "old/letters/2.txt": "update/remove"}
    assert sorted(os.listdir(f"{week.root}/drafts")) == ["1.txt", "new.txt"]
    assert not os.path.exists(f"{week.root}/old")
    assert sorted(os.listdir(f"{week.root}/plans")) == ["ann.txt", "ben.txt"]

    ann, ben = week.apart()
    write(ann.path("plans/ben.txt"), "changed by ann\n")
    os.rename(ann.path("minutes.txt"), ann.path("minutes-ann.txt"))
    shutil.rmtree(ben.path("plans"))
    os.rename(ben.path("minutes.txt"), ben.path("minutes-ben.txt"))
    found = week.evening({"plans*": "server", "minutes*": "server"})
    assert found["plans/ben.txt"] == "remove/update"
    assert os.listdir(f"{week.root}/plans") == ["ben.txt"]
    assert read(f"{week.root}/plans/ben.txt") == "changed by ann\n"
    minutes = {n for n in os.listdir(week.root) if n.startswith("minutes")}
    assert minutes == {"minutes-ann.txt"}


def saturday_nothing_is_left_to_do(week: Week) -> None:
    """Both shut down and start again; that changes nothing anywhere."""
    before = stamps(week.root)
    for laptop in (week.ann, week.ben):
        laptop.client.umount()
        laptop.client.mount(f"fresh={FRESH_S}")
    week.compare()
    assert stamps(week.root) == before


def stamps(root: str) -> dict[str, tuple[int, int]]:
    """When what was changed on the server."""
    walked = os.walk(root)
    paths = [os.path.join(at, name) for at, ds, fs in walked for name in (*ds, *fs)]
    return {path: (os.lstat(path).st_ino, os.lstat(path).st_ctime_ns) for path in paths}
