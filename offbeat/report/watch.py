"""Watching a run play, in a window."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation
from offbeat.config.validation import check_range
from offbeat.envs.closing import closed_after
from offbeat.errors import UserError
from offbeat.report.pictures import open_camera
from offbeat.run.load import restore
from offbeat.run.own import command
from offbeat.scoring.evaluate import choose_policy
from offbeat.types import EnvStep


def play_run(
    run: Path,
    episodes: int = 1,
    policy: str | None = None,
    seed: int = 0,
    *,
    checkpoint: Path | str | None = None,
    say: Callable[[str], None] | None = None,
    **own: Any,
) -> Evaluation:
    """Show episodes in a window, at the speed that people play; closing it ends them. Returns their scores.

    Arguments as of ``offbeat.scoring.evaluate.evaluate_run``.

    UserError offering ``offbeat record`` where no window can be opened.
    """
    check_range("evaluation.episodes", episodes, "episodes")
    check_range("seed", seed)
    loaded = restore(run, checkpoint=checkpoint, **own)
    greedy = choose_policy(loaded, policy, say)
    window = Window(f"offbeat · {run}", command("record", run, own))
    camera = open_camera(loaded.config.eval_env, own.get("env_factory"), say)

    def show(step: EnvStep) -> None:
        frame = camera.picture(step)
        if frame is not None:
            window.show(frame, 1 / camera.fps)

    with closed_after(camera.env, loaded.config.eval_env.id, say), closing(window):
        return play_episodes(
            camera.env, loaded.agent, episodes=episodes, greedy=greedy, seed=seed, on_step=show,
            stop=lambda: window.closed, version=loaded.version,
        )  # fmt: skip


class Window:
    """A window that shows pictures, drawn by matplotlib."""

    def __init__(self, title: str, instead: str) -> None:
        """Open it. UserError where there is no display or no windowing toolkit; ``instead``: how to film it."""
        remedy = f"film it with: {instead}"
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"a window needs a display and there is none; {remedy}")
        import matplotlib
        from matplotlib import pyplot
        from matplotlib.backends import BackendFilter, backend_registry

        self._pyplot = pyplot
        windows = {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}
        if matplotlib.get_backend().lower() not in windows:
            raise UserError(f"a window needs a toolkit of matplotlib's (Tk, Qt, GTK) and none is installed; {remedy}")
        self._figure = pyplot.figure(title)
        self._image: Any = None
        self._due = time.monotonic()

    @property
    def closed(self) -> bool:
        """Whether the user has closed it."""
        return not self._pyplot.fignum_exists(self._figure.number)

    def show(self, frame: np.ndarray, period_s: float) -> None:
        """Show a picture [H, W, 3] ``period_s`` after the one before."""
        if self._image is None:
            axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.axis("off")
            self._image = axes.imshow(frame)
        self._image.set_data(frame)
        self._due = max(self._due + period_s, time.monotonic() - period_s)
        self._pyplot.pause(max(1e-3, self._due - time.monotonic()))

    def close(self) -> None:
        """Close it; harmless when the user already did."""
        self._pyplot.close(self._figure)
