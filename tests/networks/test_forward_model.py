"""The forward model: its layers one by one, its loss by hand, and that it learns what a game does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from offbeat.networks.forward_model import ForwardModel
from offbeat.types import ArraySpec

PICTURE = ArraySpec((2, 6, 5), "uint8", 0, 1)
GREY = ArraySpec((1, 3, 5), "uint8", 0, 255)
VECTOR = ArraySpec((3,))
HISTORY = ArraySpec((4,), "int64", 0, 3)
THERE = {"board": PICTURE, "grey": GREY, "speed": VECTOR, "height": ArraySpec(())}
SEEN = THERE | {"board": ArraySpec((6, 6, 5), "uint8", 0, 1), "speed": ArraySpec((9,)), "actions": HISTORY}


def any_of(specs: dict[str, ArraySpec], rows: int) -> dict[str, Tensor]:
    found = {}
    for key, spec in specs.items():
        if spec.dtype.startswith("float"):
            found[key] = torch.randn(1, rows, *spec.shape)
        else:
            dtype = torch.uint8 if spec.dtype == "uint8" else torch.int64
            found[key] = torch.randint(int(spec.high or 0) + 1, (1, rows, *spec.shape), dtype=dtype)
    return found


def make_model() -> ForwardModel:
    torch.manual_seed(0)
    return ForwardModel(SEEN, THERE, "actions", 7)


def test_one_layer_reads_and_says_everything() -> None:
    model = make_model()
    seen = any_of(SEEN, 3)
    found = model(seen)
    assert list(found) == list(THERE)
    for i in range(3):
        x = []
        for action in seen["actions"][0, i].tolist():
            x += [1.0 if action == a else 0.0 for a in range(4)]
        for key in THERE:
            top = {"board": 1, "grey": 255}.get(key, 1)
            x += [value / top for value in seen[key][0, i].flatten().tolist()]
        hidden = (model.hidden.weight @ torch.tensor(x) + model.hidden.bias).clamp(min=0)
        for layer, (key, spec) in zip(model.told, THERE.items(), strict=True):
            said = layer(hidden)
            if key in ("board", "grey"):
                wanted = said.sigmoid() * (spec.high or 0)
            else:  # of a stack the newest are added to
                wanted = said + seen[key][0, i].flatten()[-said.numel() :]
            torch.testing.assert_close(found[key][0, i], wanted.reshape(spec.shape))
        assert not any(value.requires_grad for value in found.values())


def test_the_loss_is_what_the_said_is_worse_than_the_truth() -> None:
    model = make_model()
    seen, there = any_of(SEEN, 3), any_of(THERE, 3)
    loss, said = model.loss(seen, there), model(seen)
    for i in range(3):
        wanted = 0.0
        for key in ("speed", "height"):
            pairs = zip(said[key][0, i].flatten().tolist(), there[key][0, i].flatten().tolist(), strict=True)
            wanted += 0.5 * sum((a - b) ** 2 for a, b in pairs)
        for key, top in (("board", 1), ("grey", 255)):
            for p, q in zip(said[key][0, i].flatten().tolist(), there[key][0, i].flatten().tolist(), strict=True):
                p, q = p / top, q / top
                wanted += (q * math.log(q / p) if q else 0.0) + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0)
        assert loss[0, i].item() == pytest.approx(wanted, rel=1e-4)


def test_what_it_cannot_predict_is_said() -> None:
    gear = {"gear": ArraySpec((), "int64", 0, 4)}
    with pytest.raises(ValueError, match=r"no forward model of gear \(\(\), int64\); allowed are uint8 and floats"):
        ForwardModel(gear | {"actions": HISTORY}, gear, "actions", 4)


def moved(board: Tensor, actions: Tensor) -> Tensor:
    """A dot that each action moves, 1 left, 2 right, from an edge to the other one; and one that always falls."""
    board = board.clone()
    for i in range(len(board)):
        for action in actions[i].tolist():
            dot = board[i, 0].roll(-1, 1) if action == 1 else board[i, 0].roll(1, 1) if action == 2 else board[i, 0]
            board[i] = torch.stack([dot, board[i, 1].roll(1, 0)])
    return board


def boards(count: int, generator: torch.Generator) -> Tensor:
    found = torch.zeros(count, 2, 6, 5, dtype=torch.uint8)
    for plane in range(2):
        places = torch.randint(30, (count,), generator=generator)
        found[:, plane].flatten(1)[torch.arange(count), places] = 1
    return found


def test_it_learns_where_a_dot_will_be() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    history = ArraySpec((1,), "int64", 0, 2)
    model = ForwardModel({"board": PICTURE, "actions": history}, {"board": PICTURE}, "actions", 256)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(800):
        board, actions = boards(128, generator), torch.randint(3, (128, 1), generator=generator)
        loss = model.loss(
            {"board": board[None], "actions": actions[None]}, {"board": moved(board, actions)[None]}
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    board, actions = boards(200, generator), torch.randint(3, (200, 1), generator=generator)
    said = model({"board": board[None], "actions": actions[None]})["board"][0]
    right = (said > 0.5).eq(moved(board, actions) > 0).flatten(1).all(1).float().mean()
    assert right > 0.9  # who says that nothing moves is never right: the second dot falls
