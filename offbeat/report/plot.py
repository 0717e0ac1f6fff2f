"""Learning curves as pictures: training return and evaluations of one run or of many, seeds of one setting together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.config.options import short_names
from offbeat.errors import UserError, unknown
from offbeat.report.curves import AXES, Axis, Curve, read_runs, resample, write_summary_csv
from offbeat.run.published import Published
from offbeat.run.written import written
from offbeat.scoring.compare import setting
from offbeat.scoring.ranking import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_run", "plot_runs", "read_runs", "write_summary_csv"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Colours that people with colour blindness tell apart. Source: Okabe and Ito 2008."""

LABELS_HEIGHT = 0.55
"""Room for the numbers and the label of the axis, above the legend. Unit: inches."""

PICTURES = ("png", "pdf", "svg", "jpg")
"""Endings of pictures."""

MARKERS = "DsPvX^<>"
"""Of scores that others have published: one for each of their curves."""

LEAST_SMOOTH = 20
"""Least episodes in the running mean of the training return where ``smooth`` is 0; else a fiftieth of the run's."""


def plot_run(run: Path) -> Path:
    """Draw one run into ``run/report/curve.png`` and return that path."""
    return plot_runs([Path(run)], Path(run) / "report" / "curve.png")


def plot_runs(
    runs: Iterable[Path],
    out: Path | None = None,
    x: Axis = "frames",
    smooth: int = 0,
    published: Sequence[Published] = (),
) -> Path:
    """Draw runs as one picture: a panel for each environment, a colour for each setting.

    Runs that differ in nothing but their seed are drawn as their mean with a band from the lowest to the highest.

    Args:
        runs: run folders.
        out: picture to write, its ending says what kind (png, pdf, svg); default: ``report/curves.png`` of the first.
        x: what runs to the right: environment frames, agent steps, wall seconds or learner updates.
        smooth: episodes in the running mean of the training return, at most a fifth of the run's; 0: a fitting number.
        published: curves of others to draw beside them, each known by what ``x`` is.

    Returns:
        The picture. UserError if there is no run, ``x`` or ``smooth`` is out of range, or ``out`` cannot be written.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise UserError("there are no runs to draw; name at least one run folder")
    if x not in AXES:
        raise unknown("axis", x, AXES)
    if smooth < 0:
        raise UserError(f"smooth={smooth} is out of range; it must be a number of episodes, or 0 for a fitting one")
    for curve in published:
        if curve.axis != x:
            raise UserError(f"published scores are known by {curve.by}, got the axis {x!r}; use {curve.axis!r}")
    out = Path(out) if out is not None else folders[0] / "report" / "curves.png"
    kind = out.suffix[1:].lower()
    if kind not in PICTURES:
        raise unknown("kind of picture", kind, PICTURES)
    figure = draw(read_runs(folders), x, smooth, published)
    with written(out) as draft:
        figure.savefig(draft, format=kind, dpi=150, facecolor="white")
    return out


def draw(curves: list[Curve], x: Axis = "frames", smooth: int = 0, published: Sequence[Published] = ()) -> Figure:
    """The figure of ``plot_runs``, for programs that go on with it."""
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        panels.setdefault(curve.environment, {}).setdefault(curve.group, []).append(curve)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (8.0, 4.6) if len(panels) == 1 else (5.2 * columns, 3.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel, (environment, groups) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(panel, environment, list(groups.values()), x, smooth, published)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    return figure


def _draw_panel(
    axes: Axes,
    environment: str,
    groups: list[list[Curve]],
    x: Axis,
    smooth: int,
    published: Sequence[Published],
) -> None:
    """One environment: every group in its colour, titles, labels, legend."""
    window = window_of([curve for group in groups for curve in group], smooth)
    end = max(float(curve.end[AXES.index(x)]) for group in groups for curve in group)
    end = max([end, *(at for curve in published for at, _ in curve.placed())])
    unit, label = axis_unit([curve for group in groups for curve in group], x, end)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(groups))]
    trained, scored = False, False
    for group, colour in zip(groups, colours, strict=True):
        trained |= _draw_training(axes, group, AXES.index(x), unit, window, colour)
        scored |= _draw_evaluations(axes, group, AXES.index(x), unit, colour)
    for index, theirs in enumerate(published):
        places, scores = np.array(theirs.placed()).T
        axes.plot(places / unit, scores, color="black", zorder=4, **_marked(theirs, index))
    names = sorted({group[0].name for group in groups})
    axes.set_title(f"{environment} · {names[0]}" if len(names) == 1 else environment, loc="left", fontsize=11)
    axes.set_xlabel(label)
    axes.set_ylabel("return per episode (raw reward)")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    if trained or scored:
        axes.set_xlim(left=0)
        _draw_legend(axes, groups, colours, window if trained else 0, scored, published)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no episode has ended yet", transform=axes.transAxes, ha="center", va="center", color="0.5")


def window_of(curves: list[Curve], smooth: int = 0) -> int:
    """Episodes in the running mean of the training return of these curves; ``smooth``: as of ``plot_runs``."""
    longest = max(len(curve.episode_return) for curve in curves)
    return max(1, min(smooth or max(LEAST_SMOOTH, longest // 50), longest // 5))


def _draw_training(axes: Axes, group: list[Curve], column: int, unit: float, window: int, colour: str) -> bool:
    """The running mean of the training return; of several seeds their mean and range. False if there is none."""
    lines = []
    for curve in group:
        at, mean = curve.training(window)
        if len(mean) > 1:
            lines.append((at[:, column] / unit, mean))
    grid, values = resample(lines) if len(lines) > 1 else (np.empty(0), np.empty(0))
    if grid.size:
        axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axes.plot(grid, values.mean(0), color=colour, linewidth=1.6)
    else:
        for places, mean in lines:
            axes.plot(*_thinned(places, mean), color=colour, linewidth=1.4)
    return bool(lines)


def _draw_evaluations(axes: Axes, group: list[Curve], column: int, unit: float, colour: str) -> bool:
    """Evaluations as dots, those of a single run with their intervals. False if there is none."""
    scored = [curve for curve in group if curve.eval_mean.size]
    for curve in scored:
        reach = np.abs(curve.eval_interval - curve.eval_mean[:, None]).T if len(group) == 1 else None
        axes.errorbar(
            curve.eval_at[:, column] / unit, curve.eval_mean, yerr=reach, fmt="o", markersize=4.5, color=colour,
            markeredgecolor="white", markeredgewidth=0.6, elinewidth=1.0, capsize=2, zorder=3,
        )  # fmt: skip
    return bool(scored)


def _draw_legend(
    axes: Axes, groups: list[list[Curve]], colours: list[str], window: int, scored: bool, published: Sequence[Published]
) -> None:
    """Under the panel: which colour is which group, then what lines, bands and dots are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    common = colours[0] if len(groups) == 1 else "0.4"
    seeds = max(len(group) for group in groups)
    entries: list[Artist] = []
    if len(groups) > 1:
        entries += [Line2D([], [], color=c, linewidth=3, label=t) for c, t in zip(colours, labels(groups), strict=True)]
    if window:
        text = f"training, mean of {window} episodes" + (f" and {seeds} seeds" if seeds > 1 else "")
        entries.append(Line2D([], [], color=common, linewidth=1.6, label=text))
    if window and seeds > 1:
        entries.append(Patch(color=common, alpha=0.18, linewidth=0, label="lowest to highest seed"))
    if scored:
        episodes = max(curve.eval_episodes for group in groups for curve in group)
        text = f"evaluation, mean of {episodes} episodes" + (" and its 95 % interval" if seeds == 1 else ", each seed")
        entries.append(Line2D([], [], color=common, linestyle="", marker="o", markersize=4.5, label=text))
    for index, theirs in enumerate(published):
        label = f"published: {theirs.name}" if theirs.name else "published"
        entries.append(Line2D([], [], color="black", label=label, **_marked(theirs, index)))
    below = axes.transAxes + ScaledTranslation(0, -LABELS_HEIGHT, axes.figure.dpi_scale_trans)
    axes.legend(
        handles=entries, frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below,
        borderaxespad=0, ncols=1 if len(axes.figure.axes) > 1 else 2,
    )  # fmt: skip


def _marked(curve: Published, index: int) -> dict[str, Any]:
    """How somebody else's curve, the ``index``-th of a picture, is drawn: named ones are joined, each in its way."""
    line = ("--", ":", "-.")[index % 3] if curve.name else ""
    return {"marker": MARKERS[index % len(MARKERS)], "markersize": 5, "linestyle": line, "linewidth": 0.9}


def labels(groups: list[list[Curve]]) -> list[str]:
    """What tells each group from the others: preset names, the options in which they differ, or folder names."""
    names = [group[0].name for group in groups]
    if len(set(names)) == len(names):
        return names
    differences = [" ".join(_differences(group[0], groups)) for group in groups]
    if len(set(names)) > 1:
        differences = [f"{name} {text}".strip() for name, text in zip(names, differences, strict=True)]
    if len(set(differences)) == len(names):
        return differences
    return [group[0].run.name for group in groups]


def _differences(one: Curve, groups: list[list[Curve]]) -> list[str]:
    """``learning_rate=0.001`` for every option in which the groups differ, at most three."""
    settings, own = [setting(group[0].config) for group in groups], setting(one.config)
    differing = [name for name in own if len({other.get(name) for other in settings}) > 1]
    shown = [name for name in differing if name != "preset" and not name.startswith("eval_env.")][:3]
    shorts = short_names(shown)
    return [f"{shorts[name]}={plain(own[name])}" for name in shown]


def axis_unit(curves: list[Curve], x: Axis, end: float) -> tuple[float, str]:
    """(how much one unit of the axis is, what stands under it); seconds are shown as minutes or hours."""
    if x == "seconds":
        for size, name in ((3600.0, "hours"), (60.0, "minutes")):
            if end >= 2 * size:
                return size, f"wall time ({name})"
        return 1.0, "wall time (seconds)"
    if x == "frames":
        skips = {curve.frame_skip for curve in curves}
        skip = skips.pop() if len(skips) == 1 else 1
        return 1.0, "environment frames" + (f" ({skip} per agent step)" if skip > 1 else "")
    return 1.0, {"agent_steps": "agent steps", "updates": "learner updates"}[x]


def short(value: float) -> str:
    """2500000 -> 2.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _thinned(x: np.ndarray, y: np.ndarray, points: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``points`` of a long curve, its ends included: more than that are not seen."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), points)).astype(int))
    return x[keep], y[keep]
