"""From a sampler's kind to its module: those of offbeat, and entry points of the group ``offbeat.samplers``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from offbeat.errors import UserError, load_entry_point, unknown
from offbeat.replay.sampler import Place, Sampler, SamplerConfig
from offbeat.types import ItemSpec

ENTRY_POINT_GROUP = "offbeat.samplers"
OWN = ("fifo", "uniform", "prioritised", "reservoir", "circular", "attentive", "elite", "elite_insertion")
"""Modules of ``offbeat.replay`` that are samplers."""


def list_samplers() -> list[str]:
    """Kinds of all samplers, offbeat's own first."""
    others = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [*OWN, *sorted(others - set(OWN))]


def sampler_config(kind: str, **options: Any) -> SamplerConfig:
    """The configuration of one sampler. UserError naming the nearest where there is none of that kind."""
    config: SamplerConfig = config_class(kind)(kind=kind, **options)
    return config


def config_class(kind: str) -> Any:
    """The class of a sampler's configuration. UserError naming the nearest where there is none of that kind."""
    return _module(kind).Config


def draws(kind: str) -> tuple[str, ...]:
    """The kinds of items that a sampler can draw."""
    return tuple(_module(kind).DRAWS)


def make_sampler(config: SamplerConfig, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work."""
    made: Sampler = _module(config.kind).make(config, place)
    return made


def check_suits(items: ItemSpec, samplers: tuple[SamplerConfig, ...], agent: str) -> None:
    """Raise ValueError where a sampler does not draw what ``agent`` trains on."""
    for index, sampler in enumerate(samplers):
        drawn = draws(sampler.kind)
        if items.kind not in drawn:
            allowed = ", ".join(kind for kind in list_samplers() if _suits(kind, items))
            raise ValueError(
                f"replay.samplers.{index}.kind={sampler.kind} draws {' or '.join(f'{kind}s' for kind in drawn)}, but "
                f"agent {agent!r} trains on {items.kind}s; allowed: {allowed}"
            )


def _suits(kind: str, items: ItemSpec) -> bool:
    try:
        return items.kind in draws(kind)
    except UserError:  # somebody's package that is broken
        return False


def _module(kind: str) -> Any:
    """The module (or object) with ``Config``, ``DRAWS`` and ``make``. Only listed names are ever imported."""
    if kind in OWN:
        return importlib.import_module(f"offbeat.replay.{kind}")
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if kind not in points:
        raise unknown("sampler", kind, list_samplers())
    module = load_entry_point("sampler", points[kind])
    missing = [name for name in ("Config", "DRAWS", "make") if not hasattr(module, name)]
    if missing or not (isinstance(module.Config, type) and issubclass(module.Config, SamplerConfig)):
        raise UserError(
            f"sampler {kind!r}: {module!r} must define Config (a SamplerConfig), DRAWS and make; see docs/replay.md"
        )
    return module
