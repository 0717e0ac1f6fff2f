"""From a run and what was asked for to a server that listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from offbeat.errors import UserError
from offbeat.serving.listening import Listener, default_path, tcp_listener, unix_listener
from offbeat.serving.server import Server

MOST_CLIENTS = 1024
"""Places are allocated when it starts."""


def open_server(
    run: Path,
    *,
    path: Path | None = None,
    tcp: str | None = None,
    token: str = "",
    remote: bool = False,
    clients: int = 16,
    say: Callable[[str], None] = lambda line: None,
    **served: Any,
) -> tuple[Server, list[str]]:
    """A server of a run's newest weights that listens already, and the addresses at which it does.

    Args:
        run: run folder.
        path: of the Unix socket; None: ``serve.sock`` in the run's folder, or none where ``tcp`` is given.
        tcp: ``HOST:PORT``, which clients need the ``token`` for.
        remote: other machines may be able to reach ``tcp``.
        clients: places, each with a state of its own.
        say: is told who comes and goes.
        served: as of ``offbeat.serving.policy.served_policy``.

    UserError where the run cannot be loaded, or an address cannot be listened at. Nothing listens then.
    """
    from offbeat.config.validation import check_device
    from offbeat.serving.policy import served_policy

    check_device("device", str(served.get("device", "cpu")))
    if not 1 <= clients <= MOST_CLIENTS:
        raise UserError(f"--clients={clients} is out of range; it must be in [1, {MOST_CLIENTS}]")
    listeners: list[Listener] = []
    try:
        if tcp is not None:
            listeners.append(tcp_listener(tcp, remote=remote))
        if path is not None or tcp is None:
            listeners.append(unix_listener(path or default_path(run)))
        policy = served_policy(run, slots=clients, **served)
        return Server(policy, listeners, token=token, say=say), [listener.name for listener in listeners]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
