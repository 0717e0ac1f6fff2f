"""What the runtime reads of a configuration is what configurations have."""

from __future__ import annotations

import typing

from offbeat.config.run_config import RunConfig
from offbeat.config.schema import field_types
from offbeat.runtime.settings import Settings


def test_every_setting_is_an_option_of_the_same_type() -> None:
    options = field_types(RunConfig)
    for name, member in vars(Settings).items():
        if isinstance(member, property):
            wanted = typing.get_type_hints(member.fget)["return"]
            choices = typing.get_args(options[name])
            assert options[name] is wanted or all(isinstance(choice, wanted) for choice in choices), name


def test_a_configuration_is_taken_for_settings() -> None:
    settings: Settings = RunConfig()  # mypy compares every member
    assert settings.total_frames == 10_000_000
