"""``learner.compile`` on the GPU: the same update as without, after a first step that takes its time."""

from __future__ import annotations

import shutil

import pytest

from tests.cuda.twins import GRADIENT, LOSS, STEP, as_on_a_gpu, make, make_batch, make_work, near, near_in_norm, on

pytestmark = pytest.mark.cuda


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
def test_a_compiled_update_is_the_processors(device: str) -> None:
    here, there = make("impala"), make("impala", device)
    batch = make_batch(here)
    plain, compiled = make_work(here), as_on_a_gpu(make_work(there, compile=True), there)
    expected, got = plain.collect(batch), compiled.collect(batch.to(device))
    on(device, got.total)
    near(got.total, expected.total, LOSS)
    near_in_norm(compiled.optimiser.gradient(), plain.optimiser.gradient(), GRADIENT)
    before = plain.optimiser.flat.clone()
    for work, output in ((plain, expected), (compiled, got)):
        assert work.apply(batch, output, output.total.detach(), output.count)
    near_in_norm(compiled.optimiser.flat.cpu() - before, plain.optimiser.flat - before, STEP)
