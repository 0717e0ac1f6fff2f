"""What is taken down is what was played, and under a delay the rows are those that the run's own actors would write."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.acting.demonstrating import Recorder, facts_of, read_for, rows_of
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import env_spec, make_env
from offbeat.storage.demonstrations import Demonstration, DemonstrationError, write_demonstration
from offbeat.types import EnvStep

CATCH = EnvConfig(id="toy/catch", length=6)
SPEC = env_spec(CATCH)


def played(steps: int, config: EnvConfig = CATCH, choose: Any = None) -> tuple[Demonstration, list[EnvStep], list[int]]:
    """A demonstration, its rows as they came, and the actions."""
    env, recorder, rng = make_env(config, 1), Recorder(), np.random.default_rng(3)
    rows, taken = list[EnvStep](), list[int]()
    env.reset(1)
    for _ in range(steps):
        rows.append(env.recv())
        recorder.row(rows[-1])
        taken.append(int(rng.integers(3)) if choose is None else choose(len(taken)))
        action = np.array([taken[-1]])
        recorder.sent(action)
        env.send(action)
    env.close()
    made = recorder.demonstration(facts_of(config, env.spec, 1, "a test"))
    assert made is not None
    return made, rows, taken


def test_each_row_holds_what_its_own_action_led_to():
    made, rows, taken = played(40)
    arrays = made.arrays
    assert made.facts["broken_off"] == 1 and len(arrays["valid"]) == 40
    for t, step in enumerate(rows[:-1]):
        assert np.array_equal(arrays["observation/observation"][t], step.observation["observation"][0])
        assert arrays["first"][t] == step.first[0]
        if step.valid[0]:
            after = rows[t + 1]
            assert (arrays["action"][t], arrays["reward"][t]) == (taken[t], after.raw_reward[0])
            assert arrays["terminated"][t] == after.terminated[0]
            assert arrays["truncated"][t] == (t == 38)
    assert not arrays["valid"][-1] and made.transitions == arrays["valid"].sum()


def test_whole_episodes_end_as_they_did_and_an_episode_without_an_action_is_left_out():
    made, rows, _ = played(13)  # two episodes of six actions with their final rows take 14 rows at least
    ends = [t for t, step in enumerate(rows) if not step.valid[0]]
    whole, _, _ = played(ends[0] + 2)  # the next episode's first row was shown, nothing was done in it
    assert whole.facts["broken_off"] == 0 and whole.episodes == 1 and whole.rows == ends[0] + 1
    assert whole.arrays["terminated"][-2] and not whole.arrays["truncated"].any()
    assert made.episodes > 1
    assert Recorder().demonstration({}) is None


def naive(made: Demonstration, delay: DelayConfig, discount: float) -> list[tuple[Any, ...]]:
    """Rows (source frame, action, reward, elapsed, usable) of a constant delay, in plain loops over each episode."""
    arrays, found = made.arrays, list[tuple[Any, ...]]()
    starts = [*np.flatnonzero(arrays["first"]), made.rows]
    late = delay.inference_frames
    period = max(1, late) if delay.mode == "sequential" else 1
    for begin, end in itertools.pairwise(starts):
        last = end - begin - 1  # the frame of the final observation
        acting = list(range(late, last, period))
        for frame, after in zip(acting, [*acting[1:], last]):
            span = range(frame, after)
            between = [arrays["action"][begin + f] for f in span][1:]
            reward = sum(arrays["reward"][begin + f] for f in span)
            row = (begin + frame - late, arrays["action"][begin + frame], reward, len(span))
            found.append((*row, all(a == delay.noop_action for a in between)))
    return found


@pytest.mark.parametrize("delay", [
    DelayConfig(), DelayConfig(inference_frames=2), DelayConfig(mode="sequential", inference_frames=2),
])  # fmt: skip
def test_under_a_delay_rows_are_those_of_decisions_that_act_where_somebody_acted(delay: DelayConfig):
    made, _, _ = played(60)
    rows = rows_of(made, replace(CATCH, delay=delay), SPEC, 0.9)
    columns, usable = rows.columns, rows.usable
    kept = np.flatnonzero(columns["valid"])
    expected = naive(made, delay, 0.9)
    assert len(kept) == len(expected)
    for at, (source, action, reward, elapsed, fine) in zip(kept, expected):
        seen = columns["observation/observation"][at]
        assert np.array_equal(seen, made.arrays["observation/observation"][source])
        assert (columns["action"][at], columns["elapsed"][at], usable[at]) == (action, elapsed, fine)
        assert columns["reward"][at] == pytest.approx(reward)
        last = columns["terminated"][at]
        assert columns["discount"][at] == pytest.approx(0.0 if last else 0.9**elapsed)
    assert not usable[~columns["valid"]].any()
    assert usable[kept].all() == (delay.mode == "async")


def test_the_runs_own_reward_options_and_stacks_are_laid_over_it():
    made, _, _ = played(40)
    config = replace(CATCH, reward_clip="sign", reward_scale=3.0)
    rows = rows_of(made, config, env_spec(config), 0.99)
    assert -3.0 in rows.columns["reward"] and set(rows.columns["reward"]) <= {-3.0, 0.0, 3.0}


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path):
    made, _, _ = played(40)
    file = write_demonstration(tmp_path / "demo", made)
    other = replace(CATCH, length=7)
    cases = [
        (replace(CATCH, id="toy/copy"), SPEC, r"its environment: got 'toy/catch', allowed is 'toy/copy'"),
        (other, env_spec(other), r"its env.length: got 6, allowed is 7"),
        (CATCH, env_spec(EnvConfig(id="toy/catch", length=7)), r"its observations: got .*6, 5.*allowed is .*7, 5"),
    ]
    for config, spec, says in cases:
        with pytest.raises(DemonstrationError, match=says) as error:
            read_for(file, config, spec, 0.99)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
    made.arrays["action"][0] = 5
    with pytest.raises(DemonstrationError, match="its actions: got 0 to 5, allowed are 0 to 2"):
        read_for(write_demonstration(tmp_path / "five", made), CATCH, SPEC, 0.99)
    busy, _, _ = played(40, choose=lambda t: 1)  # never the default action
    late = replace(CATCH, delay=DelayConfig(mode="sequential", inference_frames=3))
    with pytest.raises(DemonstrationError, match="nothing can be learnt from it under this delay"):
        read_for(write_demonstration(tmp_path / "busy", busy), late, SPEC, 0.99)


def test_all_files_of_a_folder_are_one_demonstration_and_nothing_private_is_told(tmp_path: Path):
    made, _, _ = played(40)
    for name in ("a", "b"):
        write_demonstration(tmp_path / name, made)
    both = read_for(tmp_path, CATCH, SPEC, 0.99)
    one = rows_of(made, CATCH, SPEC, 0.99)
    assert both.digest() == one.joined(one).digest() != one.digest()
    assert not {"folder", "rom", "delay"} & made.facts["options"].keys()
