"""Generators that a checkpoint holds, with a stand-in for a GPU's own, and the switches of deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from offbeat.runtime.generators import (
    CUBLAS,
    choose_deterministic_kernels,
    drawing_anew,
    generator_state,
    load_generator_state,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


class Card:
    """A GPU's generator as ``torch.cuda`` gives it: the bytes of another generator on the processor."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def get_rng_state(self, device: torch.device) -> torch.Tensor:
        """Of this card only."""
        assert device == GPU
        return self.generator.get_state()

    def set_rng_state(self, state: torch.Tensor, device: torch.device) -> None:
        """Of this card only."""
        assert device == GPU
        self.generator.set_state(state)

    def draw(self) -> torch.Tensor:
        """Some numbers."""
        return torch.rand(4, generator=self.generator)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Behind ``torch.cuda``."""
    made = Card()
    monkeypatch.setattr(torch.cuda, "get_rng_state", made.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", made.set_rng_state)
    return made


def test_both_generators_go_on_where_they_were(card: Card) -> None:
    saved = {name: value.numpy() for name, value in generator_state(GPU).items()}
    expected = torch.rand(4), card.draw()
    torch.rand(7), card.draw()
    load_generator_state(saved, GPU)
    assert all(map(torch.equal, (torch.rand(4), card.draw()), expected))


def test_a_processor_has_one_and_leaves_a_gpus_alone(card: Card) -> None:
    assert generator_state(CPU).keys() == {"generator"}
    saved = generator_state(GPU)
    card.draw()
    expected = card.generator.get_state()
    load_generator_state(saved, CPU)
    assert torch.equal(card.generator.get_state(), expected)
    load_generator_state({}, GPU)
    assert torch.equal(card.generator.get_state(), expected), "checkpoints of before hold none"


def test_a_network_is_drawn_from_the_seed_and_leaves_every_generator_as_it_was(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(seed: int) -> None:
        pytest.fail("every GPU was seeded, also one that a learner in this process draws from")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before, on_card = torch.get_rng_state(), card.generator.get_state()
    with drawing_anew(8, CPU):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(card.generator.get_state(), on_card)


def test_a_network_that_is_made_on_a_gpu_is_drawn_from_the_seed_there_too(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(device))
    monkeypatch.setattr(torch.cuda, "manual_seed", card.generator.manual_seed)
    on_card = card.generator.get_state()
    with drawing_anew(8, GPU):
        assert torch.equal(card.draw(), torch.rand(4, generator=torch.Generator().manual_seed(8)))
    assert torch.equal(card.generator.get_state(), on_card)


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's switches are put back afterwards."""
    monkeypatch.delenv(CUBLAS[0], raising=False)
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
    torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
    os.environ.pop(CUBLAS[0], None)


@pytest.mark.usefixtures("switches")
def test_a_gpu_gets_every_switch_that_torch_offers() -> None:
    torch.backends.cudnn.benchmark = True
    choose_deterministic_kernels(CPU)
    assert torch.backends.cudnn.benchmark and CUBLAS[0] not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
    choose_deterministic_kernels(GPU)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled(), "an operation that has none must not end a run"
    assert os.environ[CUBLAS[0]] == CUBLAS[1]
