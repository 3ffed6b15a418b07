"""What the documents name is there: paths, packages, commands, options, errors, fault names."""

from __future__ import annotations

import ast
import errno
import re
from pathlib import Path

import pytest

from awayfs.cli.main import COMMANDS, main
from awayfs.control.handshake import StartRequest
from awayfs.control.options import MountOptions, parse
from awayfs.core import errors
from awayfs.core.errors import UsageError
from awayfs.core.setting_table import TABLE
from awayfs.daemon.api import Api
from awayfs.volume.fault import NAMES

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "awayfs"
PACKAGES = sorted(init.parent.name for init in SOURCE.glob("*/__init__.py"))
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
NEEDED_METHOD = {
    "diff": "diff",
    "discard": "discard",
    "cull": "cull",
    "journal drop": "journal_drop",
    "journal export": "journal_export",
}
"""What the README calls "not in this version", and the daemon's method that it waits for."""


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without the table's head."""
    section = re.split(rf"^## {heading}$", text, maxsplit=1, flags=re.M)[1]
    lines = [line for line in re.split(r"^## ", section, flags=re.M)[0].splitlines() if line]
    table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def code(cell: str) -> list[str]:
    """The pieces of code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def named_paths(text: str) -> set[str]:
    """Everything in code that looks like a path of the source tree or of the tests."""
    roots = "|".join([*PACKAGES, "tests", "bench"])
    return {piece for piece in code(text) if re.fullmatch(rf"(?:{roots})/[\w./*-]*", piece)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_path_in_a_page_exists(page: Path) -> None:
    missing = [
        path
        for path in sorted(named_paths(page.read_text(encoding="utf-8")))
        if not any(list(root.glob(path.rstrip("/"))) for root in (SOURCE, REPOSITORY))
    ]
    assert missing == []


def test_the_architecture_names_modules_at_all() -> None:
    assert len(named_paths(text_of("docs/ARCHITECTURE.md"))) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_in_the_architecture(package: str) -> None:
    assert f"`{package}/`" in text_of("docs/ARCHITECTURE.md")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_introduces_itself(package: str) -> None:
    """One paragraph beside the first line, which names modules that are there."""
    docstring = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text())) or ""
    assert len(docstring.splitlines()) > 3
    named = set(re.findall(r"``([a-z_*]+)``", docstring))
    assert [name for name in named if not list((SOURCE / package).glob(f"{name}.py"))] == []


def test_the_readme_lists_the_commands() -> None:
    listed = [code(first)[0] for first, *_ in rows(text_of("README.md"), "Commands")]
    assert listed == list(COMMANDS)
    assert all(main.get_command(None, name) is not None for name in listed)  # type: ignore[arg-type]


def test_the_readme_lists_the_mount_options() -> None:
    listed = {
        re.split("=", code(first)[0])[0]
        for first, *_ in rows(text_of("README.md"), "Mount options")
    }
    with pytest.raises(UsageError) as unknown:
        parse("no-such-option")
    known = str(unknown.value).rpartition("known ones are ")[2].split(", ")
    assert listed == set(known)


def test_the_readme_tells_the_defaults() -> None:
    told = {
        code(first)[0].partition("=")[0]: default
        for first, default, *_ in rows(text_of("README.md"), "Mount options")
    }
    defaults = MountOptions().as_dict()
    for name in ("writes", "errno", "conflicted", "passthrough"):
        assert code(told[name]) == [defaults[name]]
    assert told["fresh"] == f"{TABLE['fresh'].default:g}"


def test_what_is_not_offered_is_said_and_nothing_else() -> None:
    """A method that comes to the daemon has to come out of this list."""
    api = Api(StartRequest("dir:/nowhere", b"/nowhere", "nowhere"), lambda: None)
    missing = {name for name, method in NEEDED_METHOD.items() if method not in api.handlers()}
    said = set()
    for command, text in rows(text_of("README.md"), "Commands"):
        name = code(command)[0]
        if name == "journal":
            later = text.partition(" tell what is unsent.")[2]
            said |= {f"journal {word.split()[0]}" for word in code(later)}
        elif "Not in this version" in text:
            said.add(name)
    if not (SOURCE / "daemon" / "fsck.py").exists():
        missing.add("fsck")
    assert said == missing


def test_the_readme_tells_the_errors() -> None:
    told = {
        cells[0]: (cells[1], int(cells[2]))
        for cells in rows(text_of("README.md"), "What a program sees")
        if len(cells) == 4 and cells[2].isdigit()
    }
    right = {
        name: (errno.errorcode[errors.POSIX_ERRNO[code]], code)
        for code, name in errors.DISCONNECTED_NAME.items()
    }
    assert told == right


def test_fault_names_in_crash_md() -> None:
    """Between ``<!-- faults -->`` and ``<!-- /faults -->``."""
    marked = re.search(r"<!-- faults -->(.*)<!-- /faults -->", text_of("docs/CRASH.md"), re.S)
    assert marked is not None
    assert sorted(set(re.findall(r"`([a-z]+\.[a-z]+)`", marked[1]))) == sorted(NAMES)
