"""What must never be a conflict on a real mount: with oneself, through clocks, on equal content."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from awayfs.testing.faulty import Plan, Trouble
from tests.harness import Client, eventually, make_server, needs_fuse

pytestmark = needs_fuse
TEXT, REWRITTEN = "one\ntwo\n", "one\r\ntwo\r\n"


def write(path: str, text: str) -> None:
    with open(path, "w", newline="") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, newline="") as file:
        return file.read()


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    """A mount of a server that fails by the plan in its ``base``."""
    server = make_server(request.param, str(tmp_path))
    client = Client(str(tmp_path), server, environment=plan_of(str(tmp_path)).environment)
    try:
        write(f"{server.root}/known", "base\n")
        client.mount("fresh=0")
        assert read(client.path("known")) == "base\n"
        yield client
    finally:
        client.close()
        server.close()


def plan_of(base: str) -> Plan:
    return Plan(os.path.join(base, "trouble"))


def trouble(client: Client, what: str, *calls: str, once: bool = False) -> Trouble:
    found = Trouble(f"t{len(what)}{len(calls)}", calls, "", what, once)
    plan_of(client.base).add(found)
    return found


def again(client: Client) -> None:
    """Try to send: an answer that was lost may be noticed only now, and the link given up."""
    with contextlib.suppress(AssertionError):
        client.online()
    client.sync(check=False)


def settle(client: Client) -> None:
    """Sent, also where the link is lost on the way, and no conflict."""

    def all_sent() -> bool:
        again(client)
        return not client.status()["pending"]["records"]

    eventually(all_sent, "the end of the replay")
    assert client.conflicts() == []


@pytest.mark.parametrize("name", ["known", "new"])
def test_a_server_that_rewrites_what_it_stores(client: Client, name: str) -> None:
    """Its version is adopted, and what is written next is based on it."""
    trouble(client, f"rewrite:{client.server.root}", "replace")
    client.offline()
    write(client.path(name), TEXT)
    settle(client)
    assert read(f"{client.server.root}/{name}") == REWRITTEN
    assert read(client.path(name)) == REWRITTEN
    assert os.lstat(client.path(name)).st_size == len(REWRITTEN)
    with open(client.path(name), "a") as file:
        file.write("three\n")
    settle(client)
    assert read(client.path(name)).endswith("three\r\n")


@pytest.mark.parametrize("name", ["known", "new"])
def test_a_rewriting_server_whose_answer_is_lost(client: Client, name: str) -> None:
    """With ids what stands there is known as ours. Without, it may be anybody's, and is kept."""
    lost = trouble(client, f"rewrite-and-lose:{client.server.root}", "replace", once=True)
    client.offline()
    write(client.path(name), TEXT)
    client.online()
    eventually(lambda: plan_of(client.base).happened(lost.name), "the loss")
    if client.server.scheme == "sftp":
        eventually(lambda: again(client) or client.conflicts(), "the conflict")
        assert (read(f"{client.server.root}/{name}"), read(client.path(name))) == (REWRITTEN, TEXT)
        return
    settle(client)
    assert read(f"{client.server.root}/{name}") == read(client.path(name)) == REWRITTEN


@pytest.mark.parametrize(
    "calls", [("replace",), ("make",), ("rename",), ("remove",), ("set_attributes",), ("stage",)]
)
def test_a_lost_answer(client: Client, calls: tuple[str, ...]) -> None:
    """Of each kind of change; done once."""
    for name in ("going", "moving"):
        write(client.path(name), name)
    client.sync()
    lost = trouble(client, "lose-answer", *calls, once=True)
    client.offline()
    write(client.path("known"), "edited here\n")
    os.mkdir(client.path("d"))
    os.rename(client.path("moving"), client.path("moved"))
    os.unlink(client.path("going"))
    os.chmod(client.path("moved"), 0o600)
    client.online()
    eventually(lambda: plan_of(client.base).happened(lost.name), "the loss")
    settle(client)
    assert sorted(os.listdir(client.server.root)) == ["d", "known", "moved"]
    assert read(f"{client.server.root}/known") == "edited here\n"
    assert os.lstat(f"{client.server.root}/moved").st_mode & 0o777 == 0o600


def test_the_same_content_on_both_sides(client: Client) -> None:
    client.offline()
    for root in (client.mountpoint, client.server.root):
        write(f"{root}/known", "the same\n")
        write(f"{root}/new", "the same too\n")
    settle(client)
    assert read(client.path("known")) == "the same\n"


@pytest.mark.parametrize("year", [1971, 2100])
def test_a_server_whose_clock_is_wrong(client: Client, year: int) -> None:
    """Its times are compared with its times alone."""
    when = (year - 1970) * 365 * 86400
    os.utime(f"{client.server.root}/known", (when, when))
    assert int(os.lstat(client.path("known")).st_mtime) == when
    client.offline()
    write(client.path("known"), "edited here\n")
    settle(client)
    assert read(f"{client.server.root}/known") == "edited here\n"
