"""Tickets of a real KDC: they log in, they run out, and a new one brings the volume back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guarded import mode_is
from tests.harness import Client, needs_fuse
from tests.kerberos import PASSWORD, Kdc, KerberosSshd, cache_in_keys, kdc, needs_kerberos
from tests.programs import attempt
from tests.sshd import needs_sshd

pytestmark = [*needs_fuse, *needs_sshd, *needs_kerberos]

SHORT_S = 20


@dataclass
class Share:
    """What the harness wants to know of a server."""

    sshd: KerberosSshd
    realm: Kdc
    client: Client
    root: str

    scheme = "sftp"

    @property
    def url(self) -> str:
        return f"sftp://{self.sshd.user}@localhost:{self.sshd.port}{self.root}"

    @property
    def options(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.sshd.options.items())


@pytest.fixture(params=["file", "keys"])
def share(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Share]:
    import getpass

    keys = cache_in_keys() if request.param == "keys" else nullcontext("")
    root = tmp_path / "share"
    root.mkdir()
    (root / "f").write_text("of the server\n")
    with keys as cache, kdc(str(tmp_path / "realm"), getpass.getuser(), cache) as realm:
        sshd = KerberosSshd(str(tmp_path / "sshd"), realm)
        client = Client(str(tmp_path), None)  # type: ignore[arg-type]
        client.environment = {
            **realm.environment,
            "HOME": client.home,
            "XDG_CONFIG_HOME": f"{client.home}/config",
            "SSH_AUTH_SOCK": "",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        }
        client.server = share = Share(sshd, realm, client, str(root))  # type: ignore[assignment]
        try:
            sshd.start()
            yield share
        finally:
            client.close()
            sshd.kill()


@pytest.mark.slow
def test_a_ticket_that_runs_out(share: Share) -> None:
    client = share.client
    assert "kinit" in client.fails("mount", share.url, client.mountpoint, "-o", share.options)
    share.realm.kinit(f"{SHORT_S}s")
    got = time.monotonic()
    client.mount()
    mode_is(client, "connected")
    assert Path(client.path("f")).read_text() == "of the server\n"
    log = Path(share.sshd.directory, "log").read_text()
    assert "Accepted gssapi-with-mic" in log or "Accepted gssapi-keyex" in log
    time.sleep(max(0.0, got + SHORT_S + 1 - time.monotonic()))
    assert client.status()["mode"] == "connected", "a session outlives its ticket"
    share.sshd.restart()
    mode_is(client, "auth-required")
    assert "kinit" in client.status()["cause"]
    assert attempt("read", client.path("f")).text == "of the server\n"
    Path(client.path("f")).write_text("changed meanwhile\n")
    os.rename(client.path("f"), client.path("g"))
    assert client.conflicts() == []
    share.realm.kinit("1h")
    mode_is(client, "connected", "reintegrating")
    assert "the Kerberos ticket: not as before" in client.log, "it came back later, by itself"
    client.sync()
    assert os.listdir(share.root) == ["g"] and client.conflicts() == []
    assert Path(share.root, "g").read_text() == "changed meanwhile\n"
    assert PASSWORD not in client.log
