"""``offbeat.serve``: from a run to a server that listens, and nothing that listens where that fails."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

import offbeat
from offbeat.errors import UserError
from offbeat.serving.client import Client
from offbeat.serving.start import MOST_CLIENTS, open_server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few seconds."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return offbeat.train("debug", out=str(out), total_frames=400, evaluation={"every_frames": 0, "at_end": False}).run


def test_the_python_interface(run: Path) -> None:
    server = offbeat.serve(run, policy="greedy", clients=2)
    path = run / "serve.sock"
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    thread = threading.Thread(target=server.run)
    thread.start()
    with Client(path) as client:
        assert client.act(np.zeros((10, 5), np.float32)) == offbeat.load(run).act(np.zeros((10, 5), np.float32))
        assert json.loads(client.about["observation"])["observation"]["shape"] == [10, 5]
    server.stop()
    thread.join(20)
    assert not thread.is_alive() and not path.exists()


def test_nothing_listens_where_it_cannot_be_served(run: Path, tmp_path: Path) -> None:
    wrong: list[dict[str, object]] = [
        {"clients": 0}, {"clients": MOST_CLIENTS + 1}, {"policy": "best"}, {"device": "cuda:77"}, {"checkpoint": "7"},
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(UserError, match=next(iter(given)).rstrip("s")):
            open_server(run, path=tmp_path / "s", **given)  # type: ignore[arg-type]
        assert not (tmp_path / "s").exists()


def test_addresses_are_those_that_were_asked_for(run: Path, tmp_path: Path) -> None:
    server, names = open_server(run, tcp="127.0.0.1:0", token="x" * 16)
    assert len(names) == 1 and names[0].startswith("127.0.0.1:") and not (run / "serve.sock").exists()
    server.stop()
    server.run()
    server, names = open_server(run, tcp="127.0.0.1:0", token="x" * 16, path=tmp_path / "s")
    assert names[1:] == [str(tmp_path / "s")]
    server.stop()
    server.run()
    assert not (tmp_path / "s").exists()
