"""What could be shown to a server: that it became another one is seen, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from awayfs.control import keyring_lock
from awayfs.control.keyring_lock import Lock
from awayfs.daemon import tickets
from awayfs.daemon.proofs import Proofs, agent_keys, changed

needs_agent = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    address = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    try:
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()


def key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return str(path)


@needs_agent
def test_keys_of_a_real_agent(agent: str, tmp_path: Path) -> None:
    told = [agent_keys(agent)]
    environment = {**os.environ, "SSH_AUTH_SOCK": agent}
    for words in (["-q", key(tmp_path / "one")], ["-q", key(tmp_path / "two")], ["-q", "-D"]):
        subprocess.run(["ssh-add", *words], env=environment, check=True)
        told.append(agent_keys(agent))
    assert None not in told
    assert len(set(told)) == 3 and told[0] == told[3]


def test_an_agent_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awayfs.daemon.proofs.AGENT_WITHIN_S", 0.1)
    assert agent_keys("") is None
    assert agent_keys(str(tmp_path / "none")) is None
    address = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        assert agent_keys(address) is None


def test_files_that_change(tmp_path: Path) -> None:
    ssh, credentials, tickets = tmp_path / ".ssh", tmp_path / "credentials", tmp_path / "tickets"
    identity, caches = tmp_path / "identity", tmp_path / "caches"
    ssh.mkdir()
    caches.mkdir()
    lock = [Lock.LOCKED]

    def proofs(cache: str) -> Proofs:
        environment = {"HOME": str(tmp_path), "KRB5CCNAME": cache}
        named = {"the key file": str(identity)}
        return Proofs(environment, str(credentials), named, lambda: lock[0])

    file, directory = proofs(f"FILE:{tickets}"), proofs(f"DIR:{caches}")
    elsewhere = proofs("KCM:1000")

    def seen(act: object) -> str:
        before = [one.look() for one in (file, directory, elsewhere)]
        assert callable(act)
        act()
        after = [one.look() for one in (file, directory, elsewhere)]
        return "; ".join(changed(*pair) for pair in zip(before, after, strict=True))

    def all_three(what: str) -> str:
        return "; ".join([what] * 3)

    assert seen(lambda: None) == all_three("")
    assert seen(lambda: credentials.write_text("p")) == all_three("the credentials file")
    assert seen(lambda: identity.write_text("k")) == all_three("the key file")
    assert seen(lambda: (ssh / "id_new").write_text("k")) == all_three("the key files")
    assert seen(lambda: (ssh / "known_hosts").write_text("h")) == all_three("")
    assert seen(lambda: os.mkfifo(ssh / "cm-socket")) == all_three("")
    assert seen(lambda: lock.__setitem__(0, Lock.OPEN)) == all_three("the keyring's lock")
    assert seen(lambda: tickets.write_text("t")) == "the Kerberos ticket; ; "
    assert seen(lambda: (caches / "tkt1").write_text("t")) == "; the Kerberos ticket; "


KLIST = """#!/bin/sh
[ "$1" = -A ] && [ "$LC_ALL" = C ] && exec cat "$HOME/told"
"""


@pytest.mark.parametrize("cache", ["KEYRING:persistent:1000", "KCM:1000", ""])
def test_tickets_that_are_in_no_file(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "usable", lambda: True)
    program, told = tmp_path / "klist", tmp_path / "told"
    program.write_text(KLIST)
    program.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    proofs = Proofs({**environment, "KRB5CCNAME": cache}, str(tmp_path / "credentials"))

    def what_changes(text: str) -> str:
        before = proofs.look()
        told.write_text(text)
        return changed(before, proofs.look())

    head = "Ticket cache: KCM:1000\nDefault principal: me@R\n\n"
    first = "11/27/26 08:00:00  11/28/26 08:00:00  krbtgt/R@R\n"
    renewed = first.replace("08", "09")
    server = "11/27/26 08:00:01  11/28/26 08:00:00  host/server@R\n"
    assert what_changes("") == ""
    assert what_changes(head + first) == "the Kerberos ticket"
    assert what_changes(head + first + server) == "", "what our own attempt got with it"
    assert what_changes(head + server + renewed) == "the Kerberos ticket"
    monkeypatch.setattr(tickets, "usable", lambda: False)
    assert what_changes(head + first) == "", "nobody would show it to a server"


def test_a_list_of_tickets_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "usable", lambda: True)
    monkeypatch.setattr(tickets, "LISTED_WITHIN_S", 0.2)
    program = tmp_path / "klist"
    assert tickets.listed({"PATH": str(tmp_path)}) == ()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    assert tickets.listed({"PATH": f"{tmp_path}:{os.environ['PATH']}"}) == ()


def test_without_a_bus_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    assert keyring_lock.look() is Lock.UNKNOWN
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    assert keyring_lock.look(start=True) is Lock.UNKNOWN
