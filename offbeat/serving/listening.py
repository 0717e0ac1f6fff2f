"""Where ``offbeat serve`` is found: a Unix socket that only its owner may use; where asked for, TCP with a token."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offbeat.errors import UserError
from offbeat.serving.client import TOKEN

SOCKET = "serve.sock"
"""Its name in the run's folder."""
LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes that the path of a Unix socket may have, whatever its folder."""
SHORTEST_TOKEN = 16
"""Characters."""
MAKE = "python -c 'import secrets; print(secrets.token_hex(32))' > token && chmod 600 token"
"""How to make one."""


@dataclass
class Listener:
    """A socket that listens, and what is to be removed with it."""

    socket: socket.socket
    name: str
    """As clients are told it."""
    trusted: bool = False
    """Who may connect needs no token."""
    path: Path | None = None
    node: tuple[int, ...] = ()
    """Which file it is at ``path``."""

    def close(self) -> None:
        """Stop listening, and remove the file, unless somebody else's is there meanwhile."""
        self.socket.close()
        if self.path is not None:
            with suppress(FileNotFoundError):
                if _node(self.path) == self.node:
                    self.path.unlink()


def default_path(run: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """A path for the run's socket: in its folder, or, where that is too long, in ``XDG_RUNTIME_DIR``."""
    path, elsewhere = run.absolute() / SOCKET, environ.get("XDG_RUNTIME_DIR", "")
    if len(os.fsencode(path)) <= LONGEST or not elsewhere:
        return path
    mark = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:16]
    return Path(elsewhere) / f"offbeat-{mark}.sock"


def unix_listener(path: Path) -> Listener:
    """Listen at ``path``, for this user alone (mode 0600). A socket that nobody listens at any more is replaced.

    UserError where the path is too long, is taken, or cannot be made.
    """
    used = len(os.fsencode(path))
    if used > LONGEST:
        raise UserError(
            f"the socket's path has {used} bytes, at most {LONGEST} are possible: {path}; name a shorter one with "
            "--socket"
        )
    opened = socket.socket(socket.AF_UNIX)
    try:
        _make_way(path)
        before = os.umask(0o177)
        try:
            opened.bind(os.fspath(path))
        finally:
            os.umask(before)
        opened.listen()
    except UserError:
        opened.close()
        raise
    except OSError as error:
        opened.close()
        raise UserError(
            f"no socket can be made at {path}: {error.strerror}; name another path with --socket"
        ) from error
    return Listener(opened, str(path), True, path, _node(path))


def _node(path: Path) -> tuple[int, ...]:
    """Device, number and moment of a file: numbers alone are used again."""
    seen = os.lstat(path)
    return seen.st_dev, seen.st_ino, seen.st_ctime_ns


def _make_way(path: Path) -> None:
    """Remove a socket that was left behind. UserError for one in use, and for any other file."""
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(seen.st_mode):
        raise UserError(f"{path} is there already, and is no socket; name another path with --socket")
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise UserError(f"{path} is there already, and cannot be asked: {error.strerror}") from error
    raise UserError(f"{path} is in use: a policy is served there; end that one, or name another path with --socket")


def tcp_listener(text: str, *, remote: bool = False) -> Listener:
    """Listen at ``HOST:PORT``; port 0: any that is free.

    ``remote``: other machines may reach it. UserError where they could and that was not asked for, where the address is
    none, or where it is in use.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--tcp {text}: expected HOST:PORT, such as 127.0.0.1:7777")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--tcp {text}: {host} is no address here: {error.strerror}") from error
    if not remote and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UserError(
            f"--tcp {text} can be reached from other machines, and nothing on the way is encrypted; use 127.0.0.1 and "
            "a tunnel (ssh -L), or say --remote too"
        )
    opened = socket.socket(family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen()
    except OSError as error:
        opened.close()
        raise UserError(f"--tcp {text} cannot be listened at: {error.strerror}") from error
    found = opened.getsockname()
    return Listener(opened, f"[{found[0]}]:{found[1]}" if ":" in found[0] else f"{found[0]}:{found[1]}")


def read_token(file: Path | None, environ: Mapping[str, str] = os.environ) -> str:
    """The token that TCP needs, from ``file`` or else from the environment's variable ``OFFBEAT_SERVE_TOKEN``.

    UserError where there is none, it is short, or others may read the file.
    """
    token, where = environ.get(TOKEN, ""), TOKEN
    if file is not None:
        where = str(file)
        try:
            if os.stat(file).st_mode & 0o077:
                raise UserError(f"--token-file {file} can be read by others: chmod 600 {file}")
            token = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token-file {file} cannot be read: {error}") from error
    token = token.strip()
    if not token:
        raise UserError(f"--tcp needs a token, from --token-file or from {TOKEN}; one is made by {MAKE}")
    if len(token) < SHORTEST_TOKEN:
        raise UserError(f"the token in {where} has {len(token)} characters; {SHORTEST_TOKEN} are the least: {MAKE}")
    return token


def keep_alive(opened: socket.socket) -> None:
    """Have the system find out whether who is connected by TCP is still there, and send small messages at once."""
    if opened.family == socket.AF_UNIX:
        return
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
