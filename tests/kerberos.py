"""A realm of one's own: MIT's KDC on 127.0.0.1, and an sshd that takes its tickets."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import eventually, run
from tests.sshd import Sshd, free_port, seeing

REALM = "AWAYFS.TEST"
PASSWORD = "Three-Headed-Dog-3"
_ENV = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
_PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "kdestroy")

SYSTEM_CONFIG = "/etc/krb5.conf"

needs_kerberos = [
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists(SYSTEM_CONFIG),
        reason=f"needs root, to show a server another {SYSTEM_CONFIG}",
    ),
    pytest.mark.skipif(
        any(shutil.which(one, path=_ENV["PATH"]) is None for one in _PROGRAMS),
        reason="no Kerberos here (Debian: krb5-kdc krb5-admin-server krb5-user)",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("gssapi") is None,
        reason="the extra 'kerberos' is not installed",
    ),
]

CLIENT = """[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 default_keytab_name = {directory}/keytab
 default_rcache_name = none:
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = {realm}
"""

SERVER = """[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {realm} = {{
  database_name = {directory}/principal
  key_stash_file = {directory}/stash
  acl_file = {directory}/acl
  max_life = 1d
 }}
"""


class Kdc:
    """Knows one user, the one who runs the tests, and the host ``localhost``."""

    def __init__(self, directory: str, user: str, cache: str) -> None:
        os.makedirs(directory, mode=0o700)
        self.user = user
        self.keytab = f"{directory}/keytab"
        self.config = f"{directory}/krb5.conf"
        self.environment = {
            "KRB5_CONFIG": self.config,
            "KRB5CCNAME": cache,
        }
        self._port = free_port()
        self._env = {**_ENV, **self.environment, "KRB5_KDC_PROFILE": f"{directory}/kdc.conf"}
        for name, text in (("krb5.conf", CLIENT), ("kdc.conf", SERVER)):
            filled = text.format(realm=REALM, port=self._port, directory=directory)
            Path(directory, name).write_text(filled)
        self._make()
        self._process = subprocess.Popen(
            ["krb5kdc", "-n"], env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers, "the KDC")

    def _make(self) -> None:
        run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM, env=self._env)
        for order in (
            f"addprinc -pw {PASSWORD} {self.user}",
            "addprinc -randkey host/localhost",
            f"ktadd -k {self.keytab} host/localhost",
        ):
            run("kadmin.local", "-r", REALM, "-q", order, env=self._env)

    def kinit(self, lifetime: str) -> None:
        """A ticket for the user, as a person gets one."""
        run("kinit", "-l", lifetime, self.user, env=self._env, input=f"{PASSWORD}\n")

    def close(self) -> None:
        run("kdestroy", "-q", env=self._env, check=False)
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


class KerberosSshd(Sshd):
    """A server that tickets for ``localhost`` let in, and no key. Needs root."""

    authentication = (
        *("PasswordAuthentication no", "PubkeyAuthentication no"),
        *("GSSAPIAuthentication yes", "GSSAPIStrictAcceptorCheck no"),
    )

    def __init__(self, directory: str, kdc: Kdc) -> None:
        super().__init__(directory)
        self.command = seeing({SYSTEM_CONFIG: kdc.config})  # sshd clears its environment
        known = Path(self.known_hosts).read_text()
        Path(self.known_hosts).write_text(known + known.replace("127.0.0.1", "localhost"))

    @property
    def options(self) -> dict[str, str]:
        return {"known_hosts": self.known_hosts, "ssh_config": os.devnull}


@contextmanager
def cache_in_keys() -> Iterator[str]:
    """A cache in the kernel's keys that nobody else uses; skips where processes may have none.

    ``kdestroy`` leaves the keyring that it was in (keyctl(3)).
    """
    name = f"awayfs-{os.getpid()}"
    cache = f"KEYRING:session:{name}"
    told = subprocess.run(["klist", "-c", cache], capture_output=True, text=True, check=False)
    if "not found" not in told.stderr:
        pytest.skip(f"no tickets in the kernel's keys: {told.stderr.strip()}")
    try:
        yield cache
    finally:
        session, keys = -3, ctypes.CDLL("libkeyutils.so.1")
        found = keys.keyctl_search(session, b"keyring", f"_krb_{name}".encode(), 0)
        if found > 0:
            keys.keyctl_unlink(found, session)


@contextmanager
def kdc(directory: str, user: str, cache: str = "") -> Iterator[Kdc]:
    """A realm until the end; the user's tickets are in ``cache``, or in a file there."""
    realm = Kdc(directory, user, cache or f"FILE:{directory}/tickets")
    try:
        yield realm
    finally:
        realm.close()
