"""Features of stored unrolls under the weights of now, and those that were stored: what distances are taken between."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from offbeat.algorithms import elite
from offbeat.replay.readers import read_rows
from offbeat.replay.sampler import Place
from offbeat.types import Inputs, Unroll

EXTRAS = {"policy": "behaviour_logits", "torso": "features"}
"""What rows have of each kind of features, as they were when they were acted on."""
FORBIDDEN = -1e20
"""Logits below it are those of forbidden actions."""
MOST_ROWS = 4096
"""Rows that one forward takes, so that many candidates do not take much memory."""


class Features:
    """Reads unrolls and has them encoded.

    Args:
        place: of the sampler.
        kind: ``policy`` or ``torso``.
        distance: that will be taken between them.
        p: of ``ln_norm``.
        score_rows: rows of each unroll; 0: all.
    """

    def __init__(self, place: Place, kind: str, distance: str, p: float, score_rows: int) -> None:
        extras = place.store.layout.extras
        if EXTRAS[kind] not in extras:
            raise ValueError(f"features={kind!r}: {_lacking(kind)}; rows have {', '.join(sorted(extras)) or 'none'}")
        self._place, self._kind, self._distance, self._p = place, kind, distance, p
        length = place.items.length
        self.offsets = np.arange(length)
        """[S] int64: rows of an unroll that are looked at, the last one among them."""
        if score_rows:
            first = 0 if score_rows > 1 else length - 1
            self.offsets = np.linspace(first, length - 1, score_rows).round().astype(np.int64)

    def of(
        self, stream: np.ndarray, row: np.ndarray, offsets: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, np.ndarray, int]:
        """Of unrolls (stream [k], row [k]): features now and as stored, [k, S, F] float32, NaN in rows that carry a
        final observation only; ok [k] bool, False: overwritten; and the version of the weights.

        ``offsets`` [S, k]: rows of each that are looked at; None: the configured ones.
        """
        if offsets is None:
            offsets = np.repeat(self.offsets[:, None], len(row), 1)
        place, length = self._place, self._place.items.length
        assert place.encode is not None, "a sampler that needs features is handed an encode function"
        recurrent = bool(place.store.layout.core_state)
        looked = np.repeat(np.arange(length)[:, None], len(row), 1) if recurrent else offsets
        step = max(1, MOST_ROWS // len(looked))
        parts, version = [], -1
        for start in range(0, len(row), step):
            own = slice(start, start + step)
            rows = read_rows(
                place.store, stream[own], row[own], looked[:, own], last=place.last, extra=EXTRAS[self._kind]
            )
            now, version = place.encode.features(self._kind, rows.inputs, rows.core_state)
            at, columns = torch.from_numpy(offsets[:, own]), torch.arange(rows.valid.shape[1])
            at = at if recurrent else torch.arange(len(offsets))[:, None].expand_as(at)
            valid = rows.valid[at, columns]
            pair = [each[at, columns].flatten(2).float() for each in (now, rows.extra)]
            for each in pair:
                each[~valid] = torch.nan
            parts.append((*(each.transpose(0, 1) for each in pair), torch.from_numpy(rows.ok)))
        now, stored, ok = (torch.cat(part) for part in zip(*parts))
        return now, stored, ok.numpy(), version

    def of_unroll(self, unroll: Unroll) -> tuple[Tensor, Tensor, int]:
        """The same of k unrolls that were copied, without ``ok``."""
        assert self._place.encode is not None, "a sampler that needs features is handed an encode function"
        at = torch.from_numpy(self.offsets)
        looked = torch.arange(len(unroll.valid) - 1) if unroll.core_state else at
        step = max(1, MOST_ROWS // len(looked))
        parts, version = [], -1
        for columns in torch.split(torch.arange(unroll.valid.shape[1]), step):
            own = (looked[:, None], columns)
            inputs, state = unroll.inputs, {name: value[columns] for name, value in unroll.core_state.items()}
            seen = Inputs({key: value[own] for key, value in inputs.observation.items()}, inputs.first[own])
            if inputs.last_action is not None and inputs.last_reward is not None:
                seen.last_action, seen.last_reward = inputs.last_action[own], inputs.last_reward[own]
            now, version = self._place.encode.features(self._kind, seen, state)
            parts.append(now[at] if unroll.core_state else now)
        pair = [torch.cat(parts, 1), unroll.extras[EXTRAS[self._kind]][at]]
        lacking = ~unroll.valid[at]
        now, stored = (each.flatten(2).float().masked_fill(lacking[..., None], torch.nan) for each in pair)
        return now.transpose(0, 1), stored.transpose(0, 1), version

    def distances(self, x: Tensor, y: Tensor) -> np.ndarray:
        """[k] float64 between features [k, S, F]; rows with NaN in either are left out."""
        lacking = (x.isnan() | y.isnan()).any(-1, keepdim=True)
        x, y = (each.double().masked_fill(lacking, 0.0) for each in (x, y))
        if self._kind == "policy" and self._distance != "kl":  # forbidden in both: no difference, and no direction
            x, y = (each.masked_fill(each < FORBIDDEN, 0.0) for each in (x, y))
        parts = [(x, y)]
        encode = self._place.encode
        if self._kind == "policy" and self._distance == "kl" and encode is not None and len(encode.components) > 1:
            parts = list(zip(*(torch.split(each, list(encode.components), -1) for each in (x, y))))
        found: np.ndarray = sum(elite.distance(self._distance, a, b, self._p) for a, b in parts).numpy()  # type: ignore
        return found


def _lacking(kind: str) -> str:
    """Why rows may have no such features, and what to do."""
    if kind == "policy":
        return (
            "rows need the logits that they were acted with (behaviour_logits), which agents with a policy over "
            'discrete actions store; for continuous actions use features="torso" with agent.store_features'
        )
    return "rows need the features that they were acted with, which the agent stores with agent.store_features=true"
