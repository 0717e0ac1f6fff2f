"""The options of a delay: what goes together, and delays that were recorded."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.delay_config import DelayConfig, recorded_frames


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"inference_frames": -1}, "delay.inference_frames=-1 is out of range; allowed are 0 and above"),
        ({"distribution": "uniform", "low": 3, "high": 2}, "delay.low=3 is above delay.high=2"),
        ({"high": 2}, "low and high mean nothing with delay.distribution=constant"),
        ({"distribution": "recorded"}, "go together; set both or none"),
        ({"recorded": "x.npy"}, "go together; set both or none"),
        ({"distribution": "uniform", "inference_frames": 4}, "inference_frames=4 means nothing"),
        ({"learn_frames": 4}, "allowed with sequential and learn_first"),
        ({"learn_frames": 4, "mode": "background"}, "allowed with sequential and learn_first"),
        ({"noops": 3}, "delay.noops=3 goes with delay.semantics=published only"),
        ({"period": 0.5}, "delay.period=0.5 is out of range; allowed are 1 and above"),
        ({"period": 2.0, "mode": "sequential"}, "delay.period=2.0 goes with delay.mode=async"),
        ({"period": 2.0, "semantics": "published"}, "delay.period=2.0 goes with delay.mode=async"),
        ({"semantics": "published", "mode": "sequential"}, "leave mode, learn_frames and distribution alone"),
        ({"distribution": "recorded", "recorded": "nowhere.npy"}, "'nowhere.npy' cannot be read"),
        ({"distribution": "recorded", "recorded": "pyproject.toml"}, "files of delays end in .npy or .csv"),
    ],
)
def test_what_does_not_go_together_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        DelayConfig(**options).check()


def test_the_longest_delay():
    assert DelayConfig().longest == 0 and not DelayConfig().active
    assert DelayConfig(inference_frames=8, mode="sequential", learn_frames=5).longest == 8
    assert DelayConfig(distribution="uniform", low=2, high=6).longest == 6
    assert [DelayConfig(semantics="published", inference_frames=d).longest for d in (0, 1, 2, 8)] == [0, 0, 1, 7]
    assert DelayConfig(semantics="published", inference_frames=8, noops=8).longest == 63


def test_recorded_delays_are_frames_or_seconds(tmp_path):
    np.save(tmp_path / "frames.npy", np.array([3, 1, 4]))
    (tmp_path / "frames.csv").write_text("3,1\n4\n")
    np.save(tmp_path / "seconds.npy", np.array([0.0, 0.016, 0.1]))
    for name in ("frames.npy", "frames.csv"):
        assert recorded_frames(str(tmp_path / name), 0.0).tolist() == [3, 1, 4]
    assert recorded_frames(str(tmp_path / "seconds.npy"), 60.0).tolist() == [0, 1, 6]
    assert DelayConfig(distribution="recorded", recorded=str(tmp_path / "frames.npy")).longest == 4
    with pytest.raises(ValueError, match=r"holds parts of a step; for seconds set delay.fps"):
        recorded_frames(str(tmp_path / "seconds.npy"), 0.0)


def test_files_of_objects_and_without_delays_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "none.npy", np.zeros(0))
    (tmp_path / "negative.csv").write_text("3,-1")
    (tmp_path / "words.csv").write_text("a,b")
    for name, told in (("objects.npy", "cannot be read"), ("none.npy", "at least one"),
                       ("negative.csv", "0 or above"), ("words.csv", "cannot be read")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            recorded_frames(str(tmp_path / name), 0.0)
