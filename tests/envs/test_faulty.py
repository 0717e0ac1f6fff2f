"""Environments that break on purpose do so at their step."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.faulty import ERRORS, is_faulty, make_faulty
from offbeat.envs.registry import make_env


def played(env: VectorEnv, steps: int) -> list[float]:
    env.reset(0)
    rewards = []
    for _ in range(steps):
        rewards.append(float(env.recv().reward[0]))
        env.send(np.zeros(env.num_envs, np.int64))
    return rewards


def test_faults_happen_at_their_step() -> None:
    env = make_env(EnvConfig(id="toy/raise@5"), 2)
    played(env, 4)
    with pytest.raises(RuntimeError, match="raised on purpose at step 5"):
        played(env, 1)
    rewards = played(make_env(EnvConfig(id="toy/nan@3"), 1), 6)
    assert [bool(np.isnan(reward)) for reward in rewards] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("fault", "error"), list(ERRORS.items()))
def test_errors_are_of_their_class(fault: str, error: type[BaseException]) -> None:
    with pytest.raises(error, match=f"toy/{fault}: raised on purpose at step 2"):
        played(make_env(EnvConfig(id=f"toy/{fault}@2"), 1), 2)


def test_closing_fails_after_its_step() -> None:
    env = make_env(EnvConfig(id="toy/close@3"), 1)
    env.close()
    played(env, 3)
    with pytest.raises(RuntimeError, match="when closed after step 3"):
        env.close()


def test_kill_kills_the_process() -> None:
    code = (
        "from offbeat.envs.base import EnvConfig; from offbeat.envs.registry import make_env; import numpy as np\n"
        "env = make_env(EnvConfig(id='toy/kill@2'), 1); env.reset(0)\n"
        "for i in range(3): env.recv(); print(i, flush=True); env.send(np.zeros(1, int))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9 and done.stdout.split() == ["0", "1"]


def test_faulty_state_keeps_the_count() -> None:
    env, other = (make_env(EnvConfig(id="toy/raise@5"), 1) for _ in range(2))
    played(env, 3)
    env.recv()
    other.load_state(env.state())
    other.send(np.zeros(1, np.int64))
    other.recv()
    with pytest.raises(RuntimeError, match="at step 5"):
        other.send(np.zeros(1, np.int64))


def test_names() -> None:
    assert is_faulty("hang@7") and not is_faulty("hang") and not is_faulty("boom@7")
    with pytest.raises(ValueError, match=r"faults: raise, pipe, eof, .* nan"):
        make_faulty(EnvConfig(id="toy/boom@7"), 1)
