"""What the tests of a GPU share. ``OFFBEAT_CUDA_TESTS=cpu`` runs them on the processor, so that they cannot rot."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

VARIABLE = "OFFBEAT_CUDA_TESTS"
LAST = ("test_runs", "test_devices", "test_compile")
"""Files that start processes or compile: they come after all others, as a GPU may be lent for minutes only."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What tells most in the least time first."""
    items.sort(key=lambda item: LAST.index(item.path.stem) if item.path.stem in LAST else -1)


@pytest.fixture(scope="session")
def device() -> str:
    """The GPU, or the processor in its place."""
    if os.environ.get(VARIABLE) == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no GPU ({VARIABLE}=cpu runs these on the processor instead)")
    return "cuda"


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Convolutions, LSTMs and products are computed in float32 here, not in TF32; and what a learner in a fixed
    schedule switches on is switched off again.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.allow_tf32 = products.allow_tf32 = False
    yield
    cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
    torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
