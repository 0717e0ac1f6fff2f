"""Where a policy is served: sockets that only their owner may use, addresses, and tokens."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.serving.client import TOKEN
from offbeat.serving.listening import LONGEST, default_path, keep_alive, read_token, tcp_listener, unix_listener


def test_a_socket_is_its_owners_alone_and_is_removed(tmp_path: Path) -> None:
    path, before = tmp_path / "s", os.umask(0)
    try:
        listener = unix_listener(path)
        assert os.umask(0) == 0, "the umask is as before"
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600 and listener.trusted and listener.name == str(path)
    with pytest.raises(UserError, match="a policy is served there"):
        unix_listener(path)
    listener.close()
    assert not path.exists()
    listener.close()


def test_a_socket_that_was_left_behind_is_replaced_and_another_ones_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = unix_listener(path)
    left.socket.close()
    assert path.exists()
    new = unix_listener(path)
    left.close()
    assert path.exists(), "it is somebody else's by now"
    new.close()
    assert not path.exists()


def test_paths_that_cannot_be_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"has {LONGEST + 1} bytes, at most {LONGEST} .* --socket"):
        unix_listener(Path("/" + "x" * LONGEST))
    (tmp_path / "file").write_text("a")
    with pytest.raises(UserError, match="is no socket"):
        unix_listener(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a"
    with pytest.raises(UserError, match=r"no socket can be made at .*No such file"):
        unix_listener(tmp_path / "nowhere" / "s")
    longest = tmp_path / ("x" * (LONGEST - len(os.fsencode(tmp_path)) - 1))
    unix_listener(longest).close()


def test_the_usual_path_is_in_the_run_or_where_it_is_short(tmp_path: Path) -> None:
    assert default_path(tmp_path, {}) == tmp_path / "serve.sock"
    deep = tmp_path / ("x" * 90) / "run"
    assert default_path(deep, {}) == deep / "serve.sock"
    found = default_path(deep, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found.parent == tmp_path and found != default_path(deep / "a", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert default_path(tmp_path, {"XDG_RUNTIME_DIR": "/nowhere"}) == tmp_path / "serve.sock"


def test_only_what_was_asked_for_is_listened_at() -> None:
    with pytest.raises(UserError, match="can be reached from other machines, and nothing on the way is encrypted"):
        tcp_listener("0.0.0.0:0")
    with pytest.raises(UserError, match="other machines"):
        tcp_listener("[::]:0")
    for wrong in ("7777", ":7777", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ""):
        with pytest.raises(UserError, match="expected HOST:PORT"):
            tcp_listener(wrong)
    remote = tcp_listener("0.0.0.0:0", remote=True)
    here = tcp_listener("localhost:0")
    assert not here.trusted and not remote.trusted
    with pytest.raises(UserError, match="cannot be listened at"):
        tcp_listener(here.name)
    with socket.create_connection(here.socket.getsockname()[:2]) as opened:
        keep_alive(opened)
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    remote.close()
    here.close()


def test_a_token_is_long_and_nobody_elses(tmp_path: Path) -> None:
    file, long = tmp_path / "token", "a" * 32
    file.write_text(f" {long}\n")
    file.chmod(0o600)
    assert (
        read_token(file, {}) == read_token(None, {TOKEN: long}) == read_token(file, {TOKEN: "another one" * 4}) == long
    )
    for mode in (0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UserError, match="can be read by others: chmod 600"):
            read_token(file, {})
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(UserError, match="has 5 characters; 16 are the least"):
        read_token(file, {})
    with pytest.raises(UserError, match=f"needs a token, from --token-file or from {TOKEN}"):
        read_token(None, {})
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "none", {})
