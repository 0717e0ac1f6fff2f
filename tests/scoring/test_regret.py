"""The parts of the regret on a task where they are known, and runs that cannot be split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offbeat.acting.scores import Evaluation
from offbeat.config.run_config import apply_overrides, from_dict, to_toml
from offbeat.envs.delay_config import DelayConfig
from offbeat.errors import UserError
from offbeat.scoring.regret import as_options, check_alike, inaction_share, parts_of, regret_of
from offbeat.scoring.regret_delays import undelayed
from tests.scoring.drift import KNOWN, LENGTH, Answering, Forgetful, drift_config, drift_run, expected, right


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows all answers."""
    return drift_run(tmp_path_factory.mktemp("runs") / "reference", Answering)


def test_on_a_simulated_delay_the_parts_are_those_known_and_add_up(tmp_path: Path, reference: Path) -> None:
    delay, learn = 6, 2
    options = {"delay__mode": "sequential", "delay__inference_frames": delay, "delay__learn_frames": learn}
    run = drift_run(tmp_path / "run", Forgetful, **options)
    found = regret_of(run, reference, episodes=300, agent_factory=Answering)
    assert found is not None
    every = expected(Forgetful, delay, LENGTH - delay)
    late = expected(Forgetful, delay, len(range(delay, LENGTH, delay + learn)))
    known = {
        "learning": LENGTH * (1 - KNOWN[Forgetful]),
        "delay": LENGTH * KNOWN[Forgetful] - every,
        "inaction": every - late,
        "sum": LENGTH - late,
    }
    for name, value in known.items():
        part = found.parts[name]
        assert part.per_episode.value == pytest.approx(value, rel=0.1), name
        assert part.per_episode.low < value < part.per_episode.high, name
        assert part.per_1000_frames.value == pytest.approx(1000 * part.per_episode.value / LENGTH), name
        assert part.per_1000_frames.low == pytest.approx(1000 * part.per_episode.low / LENGTH), name
    values = [found.parts[name].per_episode.value for name in ("learning", "delay", "inaction")]
    assert sum(values) == pytest.approx(found.parts["sum"].per_episode.value)
    decided = len(range(delay, LENGTH, delay + learn)) / LENGTH
    assert inaction_share(found.evaluations["as_run"], 1) == pytest.approx(1 - decided)
    assert inaction_share(found.evaluations["every_frame"], 1) == pytest.approx(delay / LENGTH)


def test_of_a_realtime_run_the_delay_is_the_measured_one(tmp_path: Path) -> None:
    length = 200
    paced = {"realtime__fps": 60, "realtime__inference": 2, "realtime__inference_s": 7.4 / 60}
    longer = {"env__length": length, "eval_env__length": length}
    run = drift_run(tmp_path / "run", Forgetful, 3000, **paced, **longer)
    found = regret_of(run, episodes=80, agent_factory=Answering)
    assert found is not None
    counts = np.load(run / "realtime" / "staleness.npy")
    assert set(np.flatnonzero(counts)) == {7, 8}, "7.4 frames, and up to the next frame's beginning"
    share = counts[7] / counts.sum()
    period = found.delays["as_run"].period
    assert period == pytest.approx(3.7, abs=0.02), "two processes"
    answered = KNOWN[Forgetful] * (share * right(7) + (1 - share) * right(8))
    late = 7 * share + 8 * (1 - share)
    known = {
        "delay": length * KNOWN[Forgetful] - (length - late) * answered,
        "inaction": (length - late) * answered * (1 - 1 / period),
        "sum": length * KNOWN[Forgetful] - (length - late) / period * answered,
    }
    for name, value in known.items():
        assert found.parts[name].per_episode.value == pytest.approx(value, rel=0.1), name
    assert "learning" not in found.parts
    assert found.measured_inaction == pytest.approx(1 - 1 / 3.7, abs=0.01)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    own = np.mean([record["return"] for record in records if record["kind"] == "episode"])
    assert found.evaluations["as_run"].mean == pytest.approx(own, rel=0.25), "as the run itself scored"


def test_without_a_delay_nothing_is_lost_to_it(reference: Path) -> None:
    found = regret_of(reference, episodes=4, agent_factory=Answering)
    assert found is not None
    assert not found.delayed
    assert found.evaluations["undelayed"] is found.evaluations["as_run"], "played once"
    for part in found.parts.values():
        for estimate in (part.per_episode, part.per_1000_frames):
            assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_an_action_in_every_frame_leaves_nothing_to_inaction(tmp_path: Path) -> None:
    run = drift_run(tmp_path / "run", Forgetful, delay__inference_frames=3)
    seen: list[tuple[int, int]] = []
    told = {"on_progress": lambda ended, frames: seen.append((ended, frames)), "agent_factory": Answering}
    found = regret_of(run, episodes=4, **told)
    assert found is not None
    assert seen[-1] == (8, 8 * LENGTH), "of two evaluations"
    assert found.delayed
    assert found.parts["inaction"].per_episode.value == 0.0
    assert found.parts["sum"] == found.parts["delay"]


def test_what_was_stopped_is_no_report(reference: Path) -> None:
    assert regret_of(reference, episodes=4, stop=lambda: True, agent_factory=Answering) is None


def test_a_reference_that_plays_another_game_is_refused(tmp_path: Path) -> None:
    for name, length in (("run", LENGTH), ("other", 50)):
        (tmp_path / name).mkdir()
        config = drift_config(tmp_path / name, env__length=length, eval_env__length=length)
        (tmp_path / name / "config.toml").write_text(to_toml(config))
    with pytest.raises(UserError, match=r"its eval_env.length is 50, that of .*run is 100"):
        check_alike(tmp_path / "run", tmp_path / "other")


def scored(*returns: float, frames: int = 10) -> Evaluation:
    """An evaluation with these returns, of episodes of so many frames."""
    lengths = np.full(len(returns), frames)
    return Evaluation(np.array(returns), lengths, frames_each=lengths)


def test_a_single_episode_has_no_interval() -> None:
    one = scored(3.0)
    parts = parts_of({"undelayed": one, "every_frame": scored(1.0), "as_run": scored(1.0, 2.0, frames=20)})
    assert parts["delay"].per_episode.value == 2.0
    assert np.isnan(parts["delay"].per_episode.low)
    assert parts["sum"].per_episode.value == 1.5
    assert parts["sum"].per_1000_frames.value == pytest.approx(300 - 75)


def test_intervals_hold_the_difference_of_two_means() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        first, second = generator.normal(5.0, 1.0, 60), generator.normal(3.0, 2.0, 40)
        part = parts_of({"undelayed": scored(*first), "every_frame": scored(*second), "as_run": scored(*second)})[
            "delay"
        ]
        inside += part.per_episode.low < 2.0 < part.per_episode.high
    assert 86 <= inside <= 100, "of about 95"


def test_options_set_all_of_a_delay() -> None:
    delay = DelayConfig(mode="async", inference_frames=4, history=2, noop_action=1, period=2.5)
    config = from_dict({"delay": {"mode": "sequential", "learn_frames": 3, "inference_frames": 9}})
    assert apply_overrides(config, as_options(delay)).delay == delay
    assert apply_overrides(config, as_options(undelayed(delay))).delay == undelayed(delay)


def test_episodes_that_do_not_end_are_refused(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offbeat.scoring.regret.evaluate_run", lambda *arguments, **options: scored())
    with pytest.raises(UserError, match=r"no episode ended within evaluation.longest=\d+ steps"):
        regret_of(reference, episodes=4, agent_factory=Answering)
