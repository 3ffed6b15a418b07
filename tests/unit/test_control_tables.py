"""Options, URLs, paths and the mount table: tables of cases."""

from __future__ import annotations

import os
import socket
import stat
import time
from typing import Any

import pytest

from awayfs.control import handshake, mountinfo, mounts, paths, volumes
from awayfs.control.messages import ControlError
from awayfs.control.mountinfo import MountEntry, inner_path, locate, parse, unescape
from awayfs.control.options import MountOptions
from awayfs.control.options import parse as parse_options
from awayfs.control.urls import canonical, mounted_from, server_of, volume_id
from awayfs.core.errors import StoreError, UsageError
from awayfs.core.setting_table import size


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


# -o options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (",,", {}),
        ("ro", {"ro": True}),
        ("ro,rw", {}),
        ("rw,ro", {"ro": True}),
        ("allow_other,default_permissions", {"allow_other": True, "default_permissions": True}),
        ("fresh=0", {"settings": {"fresh": 0.0}}),
        ("fresh=1.5", {"settings": {"fresh": 1.5}}),
        ("writes=close", {"writes": "close"}),
        ("cache-size=20G", {"settings": {"cache-size": 20 << 30}}),
        ("cache-size=1.5M", {"settings": {"cache-size": 3 << 19}}),
        ("base-limit=512k", {"base_limit": 512 << 10}),
        ("errno=distinct,conflicted=error", {"errno": "distinct", "conflicted": "error"}),
        ("identity=/k/id", {"identity": "/k/id"}),
        (r"identity=/k/a\,b", {"identity": "/k/a,b"}),
        ("timeout=2", {"timeout": 2.0}),
        ("passthrough=off,writeback", {"passthrough": "off", "writeback": True}),
        ("volume-id=mine-1", {"volume_id": "mine-1"}),
        ("_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-show", {}),
        ("never-cache,cull=on", {"settings": {"never-cache": True, "cull": True}}),
        ("bcull=2%,bstop=0", {"settings": {"bcull": 2.0, "bstop": 0.0}}),
        ("fresh=1,fresh=2", {"settings": {"fresh": 2.0}}),
        ("noexec", {"noexec": True}),
        ("user,noexec,exec", {}),
    ],
)
def test_options(text: str, expected: dict[str, Any]) -> None:
    assert parse_options(text) == MountOptions(**expected)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("frehs=3", "frehs"),
        ("fresh", "fresh"),
        ("fresh=-1", "fresh=-1"),
        ("fresh=nan", "fresh=nan"),
        ("fresh=soon", "number of seconds"),
        ("timeout=0", "above 0"),
        ("writes=never", "behind, close or through"),
        ("cache-size=big", "500M"),
        ("cache-size=-1M", "500M"),
        ("cache-size=0", "500M"),
        ("brun=120", "below 100"),
        ("bcull=0.5", "bstop=1 must be below bcull=0.5"),
        ("frun=2,fcull=3", "fcull=3, and that below frun=2"),
        ("pin,never-cache", "exclude each other"),
        ("pin=2000", "0 to 1000"),
        ("learn=maybe", "on or off"),
        ("ro=1", "takes no value"),
        ("identity=", "file name"),
        ("volume-id=../x", "letters"),
        ("errno=linux", "posix or distinct"),
    ],
)
def test_options_refused(text: str, named: str) -> None:
    with pytest.raises(UsageError, match="-o ") as caught:
        parse_options(text)
    assert named in str(caught.value)


def test_option_files_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_options("identity=key").identity == str(tmp_path / "key")
    assert parse_options("known_hosts=~/kh").known_hosts == "/home/me/kh"


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("1", 1), ("1K", 1024), ("2MiB", 2 << 20)])
def test_size(text: str, count: int) -> None:
    assert size(text) == count


def test_options_survive_the_handshake() -> None:
    options = parse_options("ro,cache-size=1G,identity=/k")
    request = handshake.StartRequest("dir:/x", b"/m\xff", "dir-x-1", options, ready_fd=7)
    line = request.encode()
    assert line.count(b"\n") == 1
    assert handshake.StartRequest.decode(line) == request
    assert MountOptions.from_dict({**options.as_dict(), "newer": 1}) == options


# URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dir:/srv//share/", "dir:/srv/share"),
        ("dir:///srv/share", "dir:/srv/share"),
        ("dir://srv", "dir:/srv"),
        ("dir:/", "dir:/"),
        ("DIR:/a/./b", "dir:/a/b"),
        ("SFTP://Me@HOST:22/a//b/", "sftp://Me@host/a/b"),
        ("sftp://host", "sftp://host/"),
        ("sftp://host:2222/x", "sftp://host:2222/x"),
        ("sftp://u@[::1]:22/x", "sftp://u@[::1]/x"),
        ("sftp://host/~/x", "sftp://host/~/x"),
        ("sftp://host/~", "sftp://host/~/"),
        ("sftp://h/a%20b", "sftp://h/a%20b"),
        ("sftp://h/a b", "sftp://h/a%20b"),
        ("sftp://h/%7eö", "sftp://h/~%C3%B6"),
        ("sftp://a%40b@h/", "sftp://a%40b@h/"),
        ("dir:/x\udcff", "dir:/x%FF"),
        ("dir:/a?b#c", "dir:/a%3Fb%23c"),
    ],
)
def test_canonical(url: str, expected: str) -> None:
    assert canonical(url) == expected
    assert canonical(expected) == expected
    assert volume_id(url) == volume_id(expected)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "not a URL"),
        ("/srv", "not a URL"),
        ("ftp://x/", "not a URL"),
        ("s3://bucket", "does not offer"),
        ("dir:", "absolute"),
        ("sftp:host/x", "host is missing"),
        ("sftp:///x", "host is missing"),
        ("sftp://h:99999/x", "not a port"),
        ("sftp://u:secret@h/x", "password"),
        ("sftp://h/a/../b", "plain path"),
        ("sftp://h/a\nb", "control"),
        ("sftp://h/a/%2e%2e/b", "plain path"),
        ("dir:/a%00", "NUL"),
    ],
)
def test_urls_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        canonical(url)
    assert "secret" not in str(caught.value)


def test_a_relative_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    assert canonical("dir:x") == f"dir:{tmp_path}/a%20b/x"


def test_volume_ids_are_short_and_differ() -> None:
    ids = [volume_id(f"sftp://someone@a-very-long-host.example/{'d' * n}") for n in range(1, 200)]
    assert len(set(ids)) == len(ids)
    assert all(len(one) <= 48 and "/" not in one and not one.startswith("-") for one in ids)
    assert volume_id("dir:/a-b") != volume_id("dir:/a/b")


@pytest.mark.parametrize(
    ("fstype", "options", "address"),
    [
        ("nfs4", "rw,vers=4.2,clientaddr=10.0.0.1,local_lock=none,addr=10.0.0.2", "10.0.0.2"),
        ("nfs", "rw,mountaddr=10.0.0.9,addr=fe80::1%eth0", "fe80::1%eth0"),
        ("cifs", "addr=10.0.0.3,rw", "10.0.0.3"),
        ("nfs4", "rw,clientaddr=10.0.0.1", ""),
        ("ext4", "rw,addr=10.0.0.2", ""),
    ],
)
def test_the_address_that_a_share_is_mounted_from(
    fstype: str, options: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = MountEntry("0:1", b"/", b"/mnt", fstype, b"nas:/export", options)
    monkeypatch.setattr(mountinfo, "read", lambda: [entry])
    assert entry.server_address == address
    assert mounted_from("dir:/mnt/deep") == address
    assert mounted_from("sftp://nas/mnt") == ""


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("dir:/x", "localhost"),
        ("dir:/home/me/dir", "localhost"),
        ("dir:/mnt/nas/photos", "nas.example"),
        ("dir:/home/me/nas/photos", "nas.example"),
        ("dir:/mnt/nas", "nas.example"),
        ("dir:/mnt/nasty", "localhost"),
        ("dir:/mnt/six/x", "fe80::1"),
        ("dir:/mnt/win/x", "office"),
        ("dir:/mnt/ssh/x", "host"),
        ("dir:/mnt/dav", "cloud.example"),
        ("dir:/mnt/ceph", "mon1"),
        ("dir:/mnt/tag", "localhost"),
        ("dir:/mnt/disk:x", "localhost"),
        ("sftp://u@Host:2/x", "host"),
        ("sftp://[::1]/", "::1"),
        ("what", ""),
    ],
)
def test_server_of(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "/": ("ext4", "/dev/sda1"),
        "/mnt/nas": ("nfs4", "NAS.example:/export/a"),
        "/mnt/six": ("nfs", "[fe80::1]:/export"),
        "/mnt/win": ("cifs", "//office/Share Name"),
        "/mnt/ssh": ("fuse.sshfs", "me@host:dir"),
        "/mnt/dav": ("fuse", "https://cloud.example:8443/dav/"),
        "/mnt/ceph": ("ceph", "mon1:6789,mon2:6789:/"),
        "/mnt/tag": ("virtiofs", "share0"),
        "/mnt/disk:x": ("ext4", "host:/dev/sdb"),
    }
    table = [
        MountEntry("0:1", b"/", place.encode(), fstype, source.encode(), "rw")
        for place, (fstype, source) in sources.items()
    ]
    asked = []

    def readlink(place: bytes) -> bytes:
        asked.append(place)
        if place == b"/home/me/nas":
            return b"../../mnt/nas"
        raise OSError

    monkeypatch.setattr(mountinfo, "read", lambda: table)
    monkeypatch.setattr(mountinfo.file_system_of, "__defaults__", (readlink,))
    assert server_of(url) == host
    assert not any(place.startswith(b"/mnt/nas/") for place in asked), "it might hang there"


# paths


def test_directories_are_private(tmp_path: Any) -> None:
    directory = paths.ensure_volume("v")
    assert directory == str(tmp_path / "state/awayfs/volumes/v")
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(paths.state_dir()).st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777, 0o710])
def test_an_open_directory_is_refused(mode: int) -> None:
    directory = paths.ensure_state()
    os.chmod(directory, mode)
    with pytest.raises(StoreError, match=f"mode {mode:04o}.*run: chmod 700"):
        paths.ensure_state()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a directory away")
def test_somebody_elses_directory_is_refused() -> None:
    os.chown(paths.ensure_state(), 65534, 65534)
    with pytest.raises(StoreError, match=r"belongs to uid 65534.*run as that user"):
        paths.ensure_state()


def test_a_file_in_the_place_is_refused(tmp_path: Any) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/awayfs").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        paths.ensure_state()


def test_the_runtime_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = str(tmp_path / "state/awayfs/run")
    assert paths.runtime_dir() == fallback
    for unusable in ("relative", "/nonexistent"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        assert paths.runtime_dir() == fallback
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.ensure_runtime() == str(tmp_path / "awayfs")


def test_a_relative_state_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.state_dir() == "/home/me/.local/state/awayfs"


# the mount table

TABLE = rb"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /mnt/share rw,nosuid shared:7 master:2 - fuse.awayfs sftp://u@h/p rw,user_id=1000
31 30 0:41 / /mnt/share/tmp rw - tmpfs tmpfs rw
32 21 0:42 / /mnt/with\040space\011tab\012nl\134 rw - fuse.awayfs dir:/x rw,user_id=0
33 21 0:40 /sub/dir /mnt/bound rw - fuse.awayfs sftp://u@h/p rw,user_id=1000
34 21 0:43 / /mnt/sharex rw - fuse.sshfs x rw
35 21 0:44 / /mnt/over rw - fuse.awayfs dir:/y rw,user_id=0
36 35 0:45 / /mnt/over rw - tmpfs tmpfs rw
junk
""".strip()


def test_parse_mountinfo() -> None:
    entries = {entry.mountpoint: entry for entry in parse(TABLE)}
    share = entries[b"/mnt/share"]
    assert share == MountEntry(
        "0:40", b"/", b"/mnt/share", "fuse.awayfs", b"sftp://u@h/p", "rw,user_id=1000"
    )
    assert share.is_awayfs and share.user == 1000
    assert b"/mnt/with space\ttab\nnl\\" in entries
    assert entries[b"/mnt/bound"].root == b"/sub/dir"
    assert not entries[b"/mnt/sharex"].is_awayfs


def test_unescape() -> None:
    assert unescape(rb"a\040b\134040") == rb"a b\040"


LINKS = {
    b"/home/me/link": b"/mnt/share/dir",
    b"/home/me/rel": b"../../mnt",
    b"/home/me/loop": b"/home/me/loop",
    b"/home/me/top": b"/mnt/share",
}


def readlink(path: bytes) -> bytes:
    assert path != b"/mnt/share" and not path.startswith(b"/mnt/share/"), "the mount was touched"
    if path in LINKS:
        return LINKS[path]
    raise OSError(22, "Invalid argument")


@pytest.mark.parametrize(
    ("path", "mount", "inner"),
    [
        (b"/mnt/share", b"/mnt/share", b""),
        (b"/mnt/share/", b"/mnt/share", b""),
        (b"/mnt//share/./a/b", b"/mnt/share", b"a/b"),
        (b"/mnt/share/a/../b", b"/mnt/share", b"b"),
        (b"/mnt/share/\xff\n", b"/mnt/share", b"\xff\n"),
        (b"/mnt/share/..", None, b""),
        (b"/mnt/share/../share/x", b"/mnt/share", b"x"),
        (b"/mnt/share/tmp", None, b""),
        (b"/mnt/share/tmp/x", None, b""),
        (b"/mnt/share/tmpx", b"/mnt/share", b"tmpx"),
        (b"/mnt/sharex/a", None, b""),
        (b"/mnt/share2", None, b""),
        (b"/mnt/with space\ttab\nnl\\/f", b"/mnt/with space\ttab\nnl\\", b"f"),
        (b"/mnt/bound/f", b"/mnt/bound", b"sub/dir/f"),
        (b"/mnt/over/f", None, b""),
        (b"/home/me/link/f", b"/mnt/share", b"dir/f"),
        (b"/home/me/rel/share/f", b"/mnt/share", b"f"),
        (b"/home/me/top", b"/mnt/share", b""),
        (b"/home/me/top/../x", None, b""),
        (b"/", None, b""),
    ],
)
def test_locate(path: bytes, mount: bytes | None, inner: bytes) -> None:
    place, entry = locate(path, parse(TABLE), readlink)
    assert (entry.mountpoint if entry else None) == mount
    if entry is not None:
        assert inner_path(place, entry) == inner


def test_symlinks_in_a_circle_end() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        locate(b"/home/me/loop/x", parse(TABLE), readlink)


def entry_at(place: bytes, device: str = "0:99", root: bytes = b"/") -> MountEntry:
    options = f"rw,user_id={os.getuid()}"
    return MountEntry(device, root, place, "fuse.awayfs", b"dir:/x", options)


def table_is(monkeypatch: pytest.MonkeyPatch, *entries: MountEntry) -> None:
    monkeypatch.setattr(mountinfo, "read", lambda: list(entries))


def listening(volume: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    path = paths.socket_file(volume)
    listener.bind(path) if len(path) < 108 else pytest.skip("the path is too long")
    listener.listen(1)
    return listener


def test_find_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    for volume in ("alive", "dead", "gone"):
        mounts.announce(volume, "dir:/x", b"/m/" + volume.encode())
    with listening("alive"):
        table_is(monkeypatch, entry_at(b"/m/alive"), entry_at(b"/m/dead", "0:98"))
        found = {mount.volume: mount for mount in mounts.find_mounts()}
        assert found.keys() == {"alive", "dead"}
        assert found["alive"].running and found["alive"].mounted
        assert not found["dead"].running and found["dead"].mounted
        assert found["alive"].pid == os.getpid()
        assert abs(found["alive"].started - time.time_ns()) < 60e9
    mounts.clear_leftovers(found["alive"])
    mounts.withdraw("dead")
    table_is(monkeypatch)
    assert mounts.find_mounts() == []
    assert os.listdir(paths.runtime_dir()) == ["gone.json"]


def test_damaged_descriptions_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = paths.ensure_runtime()
    for name, text in (("a", "nonsense"), ("b", "[]"), ("c", '{"url": 3}'), ("d", "\xff")):
        with open(os.path.join(directory, name + ".json"), "w", encoding="latin1") as file:
            file.write(text)
    table_is(monkeypatch)
    assert mounts.find_mounts() == []


def test_a_mount_without_description_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    table_is(monkeypatch, entry_at(b"/m/x"))
    (mount,) = mounts.find_mounts()
    assert (mount.mountpoint, mount.running, mount.url) == (b"/m/x", False, "dir:/x")


def test_mount_of_a_bind_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts.announce("v", "dir:/x", b"/m/x")
    table_is(monkeypatch, entry_at(b"/m/x"), entry_at(b"/other", root=b"/sub"))
    mount, inner = mounts.mount_of(b"/other/f")
    assert (mount.mountpoint, inner) == (b"/m/x", b"sub/f")


def test_mount_of_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    table_is(monkeypatch)
    with pytest.raises(ControlError, match="not inside an awayfs mount"):
        mounts.mount_of(b"/etc")


def test_mount_of_another_users(monkeypatch: pytest.MonkeyPatch) -> None:
    other = MountEntry("0:9", b"/", b"/m/x", "fuse.awayfs", b"dir:/x", "rw,user_id=4242")
    table_is(monkeypatch, other)
    assert mounts.find_mounts() == []
    with pytest.raises(ControlError, match="uid 4242"):
        mounts.mount_of(b"/m/x/f")


# volume.json


def test_volumes_are_unknown_while_mounted_and_known_after() -> None:
    assert volumes.known() == []
    volumes.note_mounted("v", "dir:/x")
    (first,) = volumes.known()
    assert first.pending is None and first.created and first.last_mounted
    volumes.note_unmounted("v", "dir:/x", 3)
    volumes.note_mounted("v", "dir:/x")
    volumes.note_unmounted("v", "dir:/x", 4)
    (last,) = volumes.known()
    assert (last.pending, last.created) == (4, first.created)


def test_a_damaged_volume_file_is_unknown_not_empty() -> None:
    path = os.path.join(paths.ensure_volume("v"), "volume.json")
    for text in ("", "{", '{"pending": "none"}', '{"pending": true}'):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        (info,) = volumes.known()
        assert info.pending is None
