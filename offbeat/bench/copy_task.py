"""``offbeat diagnose copy``: whether a recurrent core learns to copy bits over a pause, and how its gradient matters.

A sequence of n bits, n drawn from 1 to L, is shown one by one; then come n blanks, under which the bits are to be said
in their order; the rest up to 2 L tokens is blank. Only what is said under those n blanks is scored, and both bits
count.

Source: Irie et al. 2024, section 4.1. The authors' own task leaves out one of the bits and scores blanks instead; this
one is the task as it is described.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.errors import UserError
from offbeat.networks.cores import make_core
from offbeat.networks.stacked import Stacked
from offbeat.networks.traced import TracedCore

BLANK, TOKENS = 2, 3
"""Tokens 0 and 1 are the bits."""
CHECK_EVERY, FRESH, TESTED = 50, 1_000, 10_000
"""Batches trained on between two looks at the accuracy; fresh sequences for each look, and for the end."""
Core = Literal["elstm-rtrl", "elstm-tbptt", "rtu", "rtu-tbptt", "lstm"]
Update = Literal["sequence", "token"]


@dataclass(frozen=True)
class CopyConfig:
    """What is learnt, by what, and for how long."""

    core: Core = "elstm-rtrl"
    """``elstm-rtrl`` and ``rtu`` learn by RTRL; the others truncate their gradient where an unroll begins."""
    length: int = 5
    """L, most bits of a sequence, > 0."""
    size: int = 128
    """Width of the core, > 0."""
    layers: int = 1
    """Layers of the core, > 0."""
    unroll: int = 1
    """Tokens from one truncation to the next, > 0; as many as a sequence has, 2 L, is full backpropagation."""
    update: Update = "sequence"
    """A step of the optimiser for each sequence, or after every unroll (``token``), which makes sensitivities stale."""
    learning_rate: float = 3e-3
    """Of Adam with betas 0.9 and 0.995, as the authors have it, and gradients clipped to a norm of 1."""
    batch: int = 128
    """Sequences at a time, > 0."""
    minutes: float = 2.0
    """It ends after so long, > 0, ..."""
    accuracy: float = 0.99
    """... or once such a share of fresh sequences is copied without a mistake, in (0, 1]."""
    seed: int = 1
    """Of weights and sequences."""

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range."""
        for name, kind in (("core", Core), ("update", Update)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise UserError(f"{name}={getattr(self, name)!r} is not allowed; choose one of: {allowed}")
        for name in ("length", "size", "layers", "unroll", "learning_rate", "batch", "minutes"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        if not 0 < self.accuracy <= 1:
            raise UserError(f"accuracy={self.accuracy} is out of range; allowed: above 0, at most 1")


@dataclass(frozen=True)
class Look:
    """What came of it so far."""

    updates: int
    """Steps of the optimiser."""
    sequences: int
    """Trained on."""
    seconds: float
    """Since the start, looks included."""
    loss: float
    """Mean cross-entropy of the last batch's scored bits. Unit: nats."""
    copied: float
    """Share of fresh sequences without a mistake."""
    bits: float
    """Share of right bits; half of them are without any memory."""


class CopyNetwork(nn.Module):
    """Tokens, one-hot, through a core to the logits of the next thing to say."""

    def __init__(self, config: CopyConfig) -> None:
        super().__init__()
        self.core = make_core(config.core, TOKENS, config.size, layers=config.layers)
        self.head = nn.Linear(self.core.output_size, TOKENS)

    def forward(self, tokens: Tensor, state: Any, first: Tensor) -> tuple[Tensor, Any]:
        """Logits [T, B, 3] of ``tokens`` [T, B] int64, and the state after; ``first`` [T, B] bool."""
        hidden, state = self.core(functional.one_hot(tokens, TOKENS).float(), state, first)
        return self.head(hidden), state


def draw(generator: torch.Generator, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is shown and what is to be said [2 L, B] int64, and what of it is scored [2 L, B] bool."""
    count = torch.randint(1, length + 1, (batch,), generator=generator)
    bits = torch.randint(0, 2, (length, batch), generator=generator)
    at = torch.arange(2 * length).unsqueeze(1)
    shown = torch.full((2 * length, batch), BLANK)
    shown[:length] = torch.where(at[:length] < count, bits, BLANK)
    scored = (at >= count) & (at < 2 * count)
    said = bits.gather(0, (at - count).clamp(0, length - 1))
    return shown, torch.where(scored, said, BLANK), scored


def learn(config: CopyConfig) -> Iterator[Look]:
    """Train; a look after every ``CHECK_EVERY`` batches, and one at the end on more fresh sequences."""
    torch.manual_seed(config.seed)
    network = CopyNetwork(config)
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate, betas=(0.9, 0.995), eps=1e-9)
    training, fresh = (torch.Generator().manual_seed(config.seed + part) for part in (0, 10_000))
    began, updates, batches = time.monotonic(), 0, 0
    while True:
        made, loss = train(network, optimiser, config, draw(training, config.batch, config.length))
        updates, batches = updates + made, batches + 1
        over = time.monotonic() - began > 60 * config.minutes
        if batches % CHECK_EVERY and not over:
            continue
        copied, bits = score(network, fresh, config, FRESH)
        if over or copied >= config.accuracy:
            copied, bits = score(network, fresh, config, TESTED)
            over |= copied >= config.accuracy
        yield Look(updates, batches * config.batch, time.monotonic() - began, loss, copied, bits)
        if over:
            return


def train(
    network: CopyNetwork, optimiser: torch.optim.Optimizer, config: CopyConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> tuple[int, float]:
    """Steps made with one batch, and its loss. The gradient of each unroll is divided by the batch's sequences."""
    shown, said, scored = batch
    first = torch.zeros_like(scored)
    first[0] = True
    state = network.core.initial_state(shown.shape[1])
    total, steps = 0.0, 0
    for start in range(0, len(shown), config.unroll):
        rows = slice(start, start + config.unroll)
        logits, state = network(shown[rows], state, first[rows])
        state = {name: value.detach() for name, value in state.items()}
        here = scored[rows]
        last = start + config.unroll >= len(shown)
        if here.any():
            loss = functional.cross_entropy(logits[here], said[rows][here], reduction="sum")
            (loss / shown.shape[1]).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if last or (config.update == "token" and here.any()):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            steps += 1
    return steps, total / max(1, int(scored.sum()))


@torch.no_grad()
def score(network: CopyNetwork, generator: torch.Generator, config: CopyConfig, count: int) -> tuple[float, float]:
    """Share of ``count`` fresh sequences without a mistake, and of right bits."""
    shown, said, scored = draw(generator, count, config.length)
    first = torch.zeros_like(scored)
    first[0] = True
    state = network.core.initial_state(count)
    if isinstance(network.core, TracedCore | Stacked):
        state = network.core.initial_carry(count)
    logits, _ = network(shown, state, first)
    right = logits[..., :BLANK].argmax(-1) == said
    return float((right | ~scored).all(0).float().mean()), float(right[scored].float().mean())


def diagnose_copy(config: CopyConfig, file: Path | None = None) -> Look:
    """Train, and print each look; the last one. ``file``: all of them as JSON."""
    chance = sum(0.5**n for n in range(1, config.length + 1)) / config.length
    print(
        f"copying up to {config.length} bits by {config.core} of width {config.size}, unrolls of {config.unroll} of "
        f"{2 * config.length} tokens, an update per {config.update}; without memory {chance:.1%} of sequences are right"
    )
    looks = []
    for look in learn(config):
        looks.append(look)
        print(
            f"{look.seconds:6.1f} s  {look.updates:7,} updates  loss {look.loss:.4f}  right bits {look.bits:7.2%}  "
            f"right sequences {look.copied:7.2%}",
            flush=True,
        )
    print(f"{TESTED:,} fresh sequences: {looks[-1].copied:.2%} without a mistake")
    if file is not None:
        data = {"config": asdict(config), "looks": [asdict(look) for look in looks]}
        file.write_text(json.dumps(data, indent=1) + "\n")
    return looks[-1]
