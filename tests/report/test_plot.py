"""Learning curves: numbers read from run folders, grouping of seeds, and what is drawn."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offbeat.acting.scores import Evaluation
from offbeat.config.log import LogConfig
from offbeat.config.run_config import apply_overrides, load_preset, to_toml
from offbeat.errors import UserError
from offbeat.report.curves import read_run, resample, running_mean, summarise, write_summary_csv
from offbeat.report.plot import axis_unit, draw, labels, plot_run, plot_runs, read_runs, short
from offbeat.run.dashboard import PlainLines
from offbeat.run.metrics import MetricLogger
from offbeat.run.published import Published

Options = tuple[tuple[str, str], ...]


def make_run(
    run: Path, seed: int = 0, *, preset: str = "impala-atari", episodes: int = 300, options: Options = ()
) -> Path:
    """A run folder whose return rises from -20 to 0: every 20th episode is followed by an evaluation."""
    config = apply_overrides(load_preset(preset), [("seed", str(seed)), *options])
    run.mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(config))
    time = [0.0]
    rng = np.random.default_rng(seed)
    log = LogConfig(tensorboard=False)
    display = PlainLines(1, io.StringIO())
    logger = MetricLogger(run, log, total_frames=1, clock=lambda: time[0], display=display)
    for index in range(episodes):
        time[0] += 1
        frames = 4000 * (index + 1)
        counted = {"updates": 10 * (index + 1), "samples": frames // 4, "frames": frames, "agent_steps": frames // 4}
        logger.record("learner", "learner", counted)
        mean = -20 + 20 * index / episodes
        logger.record("actor-0", "episode", {"return": mean + rng.normal(), "length": 100})
        if index % 20 == 19:
            returns = mean + rng.normal(size=10)
            record = Evaluation(returns, np.full(10, 9), at={"frames": frames - 2000}).record()
            logger.record("evaluator", "evaluation", record)
        logger.tick()
    logger.close()
    return run


def test_running_mean_equals_a_slow_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    for window in (1, 7, 50, 80):
        slow = [values[max(0, i + 1 - window) : i + 1].mean() for i in range(50)]
        assert running_mean(values, window) == pytest.approx(slow)
    assert running_mean(np.empty(0), 3).size == 0
    with pytest.raises(ValueError, match="window=0"):
        running_mean(values, 0)


def test_resample_covers_only_what_all_curves_cover() -> None:
    one = (np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    other = (np.array([4.0, 8.0]), np.array([1.0, 1.0]))
    grid, values = resample([one, other], points=5)
    assert grid.tolist() == [4, 5, 6, 7, 8]
    assert values.tolist() == [[4, 5, 6, 7, 8], [1] * 5]
    apart = (np.array([20.0, 30.0]), np.array([1.0, 1.0]))
    assert resample([one, apart])[0].size == 0


def test_a_curve_is_what_the_run_folder_says(tmp_path: Path) -> None:
    curve = read_run(make_run(tmp_path / "run"))
    assert (curve.environment, curve.name, curve.frame_skip, curve.eval_episodes) == ("Pong", "impala-atari", 4, 10)
    assert len(curve.episode_return) == 300
    assert curve.episode_at[-1, :3].tolist() == [1_200_000, 300_000, 300]
    assert curve.eval_at[:, 0].tolist() == [4000 * n - 2000 for n in range(20, 301, 20)]
    # The learner writes a mark every 5 seconds; an evaluation's other positions follow from its frames.
    assert curve.eval_at[-1] == pytest.approx([1_198_000, 299_500, 299.5, 2995])
    assert (curve.eval_interval[:, 0] < curve.eval_mean).all()
    assert (curve.eval_interval[:, 1] > curve.eval_mean).all()


def test_episodes_between_two_counts_are_placed_by_their_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", episodes=0)
    lines = [
        {"time": 0.5, "kind": "episode", "frames": 0, "agent_steps": 0, "return": 0},
        {"time": 1.0, "kind": "episode", "frames": 0, "agent_steps": 0, "return": 1},
        {"time": 2.0, "kind": "episode", "frames": 400, "agent_steps": 100, "return": 2},
        {"time": 2.5, "kind": "episode", "frames": 400, "agent_steps": 100, "return": 3},
        {"time": 4.0, "kind": "episode", "frames": 800, "agent_steps": 200, "return": 4},
        {"time": 5.0, "kind": "episode", "frames": 800, "agent_steps": 200, "return": 5},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = read_run(run)
    assert curve.episode_at[:, 0].tolist() == pytest.approx([0, 400 / 3, 400, 500, 800, 800])
    assert curve.episode_at[:, 1].tolist() == pytest.approx([0, 100 / 3, 100, 125, 200, 200])
    assert curve.episode_return.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", episodes=30)
    whole = read_run(run)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'5\n\0\0\xff\n{"time": 31.0, "role": "actor-0", "ki')
    assert len(read_run(run).episode_return) == len(whole.episode_return)


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{seed}", seed, episodes=20) for seed in range(2)]
    other = make_run(tmp_path / "other", 0, episodes=20, options=(("learner.learning_rate", "0.001"),))
    engine = make_run(tmp_path / "engine", 3, episodes=20, options=(("total_frames", "5000000"),))
    groups = [curve.group for curve in read_runs([*runs, other, engine])]
    assert groups[0] == groups[1] == groups[3]
    assert groups[0] != groups[2]


def test_labels_say_in_what_groups_differ(tmp_path: Path) -> None:
    one = read_run(make_run(tmp_path / "a", episodes=20))
    two = read_run(make_run(tmp_path / "b", episodes=20, options=(("learner.learning_rate", "0.001"),)))
    three = read_run(make_run(tmp_path / "c", episodes=20, preset="impala-atari-deep"))
    assert labels([[one], [two]]) == [f"learning_rate={one.config['learner']['learning_rate']}", "learning_rate=0.001"]
    assert labels([[one], [three]]) == ["impala-atari", "impala-atari-deep"]


def test_several_seeds_are_drawn_as_mean_and_range(tmp_path: Path) -> None:
    curves = read_runs(make_run(tmp_path / f"s{seed}", seed) for seed in range(3))
    axes = draw(curves, smooth=10).axes[0]
    grid, values = resample([(at[:, 0], mean) for at, mean in (curve.training(10) for curve in curves)])
    line = max(axes.lines, key=lambda one: len(one.get_xdata()))
    assert np.asarray(line.get_xdata()) == pytest.approx(grid)
    assert np.asarray(line.get_ydata()) == pytest.approx(values.mean(0))
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(values.min())
    assert band[:, 1].max() == pytest.approx(values.max())
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "training, mean of 10 episodes and 3 seeds",
        "lowest to highest seed",
        "evaluation, mean of 10 episodes, each seed",
    ]


def test_axes_have_titles_and_units(tmp_path: Path) -> None:
    axes = draw(read_runs([make_run(tmp_path / "run")])).axes[0]
    assert axes.get_title(loc="left") == "Pong · impala-atari"
    assert axes.get_xlabel() == "environment frames (4 per agent step)"
    assert axes.get_ylabel() == "return per episode (raw reward)"
    assert axis_unit([], "seconds", 300) == (60, "wall time (minutes)")
    assert axis_unit([], "seconds", 3600 * 9) == (3600, "wall time (hours)")
    assert [short(value) for value in (0, 250_000, 2_500_000, 3e9)] == ["0", "250k", "2.5M", "3G"]


def test_each_environment_has_a_panel(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", episodes=20), make_run(tmp_path / "b", episodes=20, preset="impala-catch")]
    figure = draw(read_runs(runs))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Pong · impala-atari", "toy/catch · impala-catch"]


@pytest.mark.parametrize("x", ["frames", "agent_steps", "seconds", "updates"])
def test_pictures_are_on_white_and_not_empty(tmp_path: Path, x: str) -> None:
    out = plot_runs([make_run(tmp_path / "run")], tmp_path / "new" / "curve.png", x=x)  # type: ignore[arg-type]
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.shape[0] > 500
    assert (pixels[0, 0] == 255).all()
    assert 0.005 < (pixels.min(2) < 200).mean() < 0.2


def test_a_run_is_drawn_into_its_report_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", episodes=20)
    assert plot_run(run) == run / "report" / "curve.png"
    assert plot_runs([run]) == run / "report" / "curves.png"


@pytest.mark.parametrize("episodes", [0, 1])
def test_a_run_without_episodes_is_drawn_too(tmp_path: Path, episodes: int) -> None:
    run = make_run(tmp_path / "run", episodes=episodes)
    assert plot_run(run).stat().st_size > 1000
    (run / "metrics.jsonl").unlink()
    figure = draw(read_runs([run]))
    assert "no episode has ended yet" in [text.get_text() for text in figure.axes[0].texts]


def test_wrong_arguments_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs to draw"):
        plot_runs([])
    with pytest.raises(UserError, match="unknown axis 'frame'; did you mean 'frames'"):
        plot_runs([tmp_path], x="frame")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="smooth=-1 is out of range"):
        plot_runs([tmp_path], smooth=-1)


def test_the_summary_has_a_row_for_each_run(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", 1, episodes=10)]
    with open(write_summary_csv(runs, tmp_path / "out" / "summary.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    first = summarise(read_run(runs[0]))
    assert [row["run"] for row in rows] == ["a", "b"]
    assert rows[0]["frames"] == "1200000"
    assert float(rows[0]["minutes"]) == 5
    assert float(rows[0]["frames_per_s"]) == 4000
    assert float(rows[0]["best"]) == pytest.approx(float(first["best"]))
    assert float(rows[0]["training"]) == pytest.approx(read_run(runs[0]).episode_return[-100:].mean(), abs=1e-3)
    assert rows[1]["final"] == ""  # never evaluated


def test_published_scores_are_drawn_by_hours(tmp_path: Path) -> None:
    curves = read_runs([make_run(tmp_path / "run")])
    (axes,) = draw(curves, "seconds", published=[Published(((5, 100.0), (38, 300.0)))]).axes
    points = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "D"]
    assert points == [[[5.0, 100.0], [38.0, 300.0]]]
    assert axes.get_xlabel() == "wall time (hours)"
    legend = axes.get_legend()
    assert legend is not None and legend.get_texts()[-1].get_text() == "published"
    with pytest.raises(UserError, match="known by hours, got the axis 'frames'; use 'seconds'"):
        plot_runs([tmp_path / "run"], published=[Published(((1, 2),))])


def test_published_curves_are_drawn_by_what_they_are_known_by(tmp_path: Path) -> None:
    curves = read_runs([make_run(tmp_path / "run")])
    theirs = [
        Published(((1e6, 15.7), (12e6, 460.1)), "agent_steps", "uniform"),
        Published(((1e6, 16.5), (12e6, 456.1)), "agent_steps", "elite"),
    ]
    (axes,) = draw(curves, "agent_steps", published=theirs).axes
    drawn = [line for line in axes.lines if line.get_color() == "black"]
    assert [line.get_xydata().tolist() for line in drawn] == [
        [[1e6, 15.7], [12e6, 460.1]],
        [[1e6, 16.5], [12e6, 456.1]],
    ]
    assert len({(line.get_marker(), line.get_linestyle()) for line in drawn}) == 2, "they can be told apart"
    assert axes.get_xlabel() == "agent steps"
    assert axes.get_xlim()[1] >= 12e6
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["published: uniform", "published: elite"]
    (by_frames,) = draw(curves, "frames", published=[Published(((4e6, 1.0),), "frames")]).axes
    assert [4e6, 1.0] in [line.get_xydata()[-1].tolist() for line in by_frames.lines]
