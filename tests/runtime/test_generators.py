"""Generators that a checkpoint holds, with a stand-in for a GPU's own, and the switches of deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from offbeat.runtime.generators import CUBLAS, choose_deterministic_kernels, generator_state, load_generator_state

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
