"""The preset's own environment with a fault in it, and runs that cannot have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvConfig
from offbeat.run.chaos.broken_env import ENV, FAULT, broken_env
from offbeat.run.chaos.environments import broken_run
from offbeat.run.chaos.ground import Ground
from offbeat.run.chaos.verdicts import Unfit


def test_it_is_the_environment_that_is_named_until_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, "toy/catch")
    monkeypatch.setenv(FAULT, "raise@3")
    env = broken_env(EnvConfig(id="broken_env", length=10), 2)
    env.reset(0)
    assert env.recv().observation["observation"].shape == (2, 10, 5)
    for _ in range(2):
        env.send(np.zeros(2, np.int64))
        env.recv()
    with pytest.raises(RuntimeError, match="raised on purpose at step 3"):
        env.send(np.zeros(2, np.int64))


@pytest.mark.parametrize("options", [[("env", "my_module:function")], [("env.ids", '["toy/catch", "toy/tmaze"]')]])
def test_other_environments_are_not_wrapped(options: list[tuple[str, str]], tmp_path: Path) -> None:
    config = apply_overrides(load_preset("debug"), options)
    own = options[0][0] == "env"
    with pytest.raises(Unfit, match="an id of its own"):
        broken_run(Ground(config, ["debug"], tmp_path, env_is_own=own), "name", "raise")
