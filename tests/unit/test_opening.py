"""URLs: what is understood, what is refused, and one spelling for all."""

from __future__ import annotations

import pytest

from awayfs.control.urls import VolumeUrl, canonical, parse_url
from awayfs.core.errors import UsageError
from awayfs.remotes.opening import open_remote

PARSED = {
    "dir:/": VolumeUrl("dir", b"/"),
    "dir:/srv/share": VolumeUrl("dir", b"/srv/share"),
    "DIR:///srv//share/": VolumeUrl("dir", b"/srv/share"),
    "dir:/a%20b/%FF": VolumeUrl("dir", b"/a b/\xff"),
    "dir:/ä#?x": VolumeUrl("dir", "/ä#?x".encode()),
    "sftp://host": VolumeUrl("sftp", b"/", "host"),
    "sftp://Me@HOST:2222/a/b": VolumeUrl("sftp", b"/a/b", "host", "Me", 2222),
    "sftp://host:22/a": VolumeUrl("sftp", b"/a", "host"),
    "sftp://host/~/x/y": VolumeUrl("sftp", b"x/y", "host"),
    "sftp://host/~": VolumeUrl("sftp", b"", "host"),
    "sftp://host/a/~": VolumeUrl("sftp", b"/a/~", "host"),
    "sftp://[2001:DB8::1]:2022/x": VolumeUrl("sftp", b"/x", "2001:db8::1", None, 2022),
    "sftp://[fe80::1%25eth0]/x": VolumeUrl("sftp", b"/x", "fe80::1%25eth0"),
    "sftp://a%40b@host/": VolumeUrl("sftp", b"/", "host", "a@b"),
}

REFUSED = {
    "sftp://me:secret@host/": "password",
    "smb://host/share": "does not offer",
    "nfs://host/export": "does not offer",
    "davs://host/": "does not offer",
    "s3://bucket": "does not offer",
    "ftp://host/": "dir:/path or sftp://",
    "/srv/share": "dir:/path or sftp://",
    "": "dir:/path or sftp://",
    "dir:relative": "absolute",
    "dir:": "absolute",
    "dir:/a/../b": r"\.\.",
    "dir:/a/%2e%2e/b": r"\.\.",
    "dir:/a%00b": "NUL",
    "sftp:/path": "host",
    "sftp:///path": "host",
    "sftp://host:0/": "port",
    "sftp://host:99999/": "port",
    "sftp://host:x/": "host",
    "sftp://-oProxyCommand=x/": "characters",
    "sftp://ho st/": "characters",
}


@pytest.mark.parametrize("url", PARSED)
def test_parse(url: str) -> None:
    assert parse_url(url) == PARSED[url]


@pytest.mark.parametrize("url", PARSED)
def test_the_canonical_url_means_the_same_and_is_its_own(url: str) -> None:
    spelled = canonical(url)
    assert parse_url(spelled) == parse_url(url)
    assert canonical(spelled) == spelled


@pytest.mark.parametrize("url", REFUSED)
def test_refused(url: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[url]) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(UsageError):
        open_remote(url, {})


def test_options() -> None:
    with pytest.raises(UsageError, match="stall"):
        open_remote("dir:/", {"stall": "soon"})
