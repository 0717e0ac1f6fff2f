"""A run that begins with what another one learnt: which that is, and whether a pretrained stem fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.networks.stem import check_stem, frozen_names
from offbeat.run.folders import find_weights
from offbeat.runtime.stem import read_stem

Start = tuple[Path | None, bool]
"""Another run that a new one starts from, if any, and whether it takes over its optimiser's statistics too."""


def with_stem(config: RunConfig, start: Start) -> RunConfig:
    """``config`` with the stem's full path in it: of a folder of runs that of the newest.

    UserError where there is none, for layers that are to stay as they are though nobody has trained them, and for
    statistics of nobody's optimiser.
    """
    learner, (init_from, statistics) = config.learner, start
    if statistics and init_from is None:
        raise UserError("--with-optimiser takes over the statistics of another run's optimiser: name it, --from RUN")
    if not learner.stem:
        for name in ("freeze_conv", "freeze_fc"):
            if getattr(learner, name) and init_from is None:
                raise UserError(
                    f"learner.{name}=true without a stem: weights that nobody has trained would stay as they are; give "
                    "--stem RUN, or start from another run with --from RUN"
                )
        return config
    if learner.freeze_fc and not learner.stem_fc and init_from is None:
        raise UserError(
            "learner.freeze_fc=true with learner.stem_fc=false: a layer that is not taken from the stem, and that "
            "nobody has trained, would stay as it is; leave one of the two out"
        )
    path = Path(learner.stem).expanduser()
    found = path if path.is_file() else find_weights(path)
    return replace(config, learner=replace(learner, stem=str(found.absolute())))


def begin_with_stem(config: RunConfig, network: nn.Module) -> list[str]:
    """What a new run says of what it takes over and of what stays as it is. UserError where that does not fit."""
    learner, lines = config.learner, list[str]()
    frozen = frozen_names(network, conv=learner.freeze_conv, fc=learner.freeze_fc)
    if learner.stem:
        stem = read_stem(Path(learner.stem), fc=learner.stem_fc)
        check_stem(stem, network, fc=learner.stem_fc, source=learner.stem)
        lines.append(f"stem: {sum(value.numel() for value in stem.values()):,} weights from {learner.stem}")
    if frozen:
        sizes = dict(network.named_parameters())
        count = sum(sizes[name].numel() for name in frozen)
        lines.append(f"not trained: {count:,} weights, {', '.join(_short(frozen))}")
    return lines


def _short(names: list[str]) -> list[str]:
    """The layers that these parameters are of."""
    return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
