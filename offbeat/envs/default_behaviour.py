"""What acts in an environment that does not wait, in the frames for which no decision is ready."""

from __future__ import annotations

import numpy as np

from offbeat.envs.seeding import pack_generator, unpack_generator
from offbeat.types import ActionSpec, ArrayDict


class DefaultBehaviour:
    """Does nothing, repeats the last decision's action, or acts at random.

    Where the environment says which actions are legal, an action that is not gives way to the first one that is.

    Args:
        spec: of the actions.
        kind: ``noop``, ``repeat`` (``noop`` before an episode's first decision) or ``random``.
        noop_action: index of the action that does nothing, of each component; of continuous ones it is what is nearest
            to zeros.
        seed: of random actions.
    """

    def __init__(self, spec: ActionSpec, kind: str, noop_action: int, seed: int) -> None:
        if spec.choices and not 0 <= noop_action < min(spec.choices):
            raise ValueError(
                f"delay.noop_action={noop_action} is no action here; allowed are 0 to {min(spec.choices) - 1}"
            )
        if not spec.choices and noop_action:
            raise ValueError(f"delay.noop_action={noop_action}: of continuous actions it is zeros; leave it at 0")
        self._spec, self._kind = spec, kind
        self.noop = spec.array.zeros(1)
        """[1, ...], the action that does nothing."""
        self._low, self._high = _bounds(spec)
        if spec.choices:
            self.noop[:] = noop_action
        else:
            self.noop[:] = np.clip(0.0, self._low, self._high)
        self._last = self.noop.copy()
        self._generator = np.random.default_rng(seed)

    def reset(self, generator: np.random.Generator) -> None:
        """Draw from ``generator`` (PCG64) from now on."""
        self._generator = generator

    def start(self) -> None:
        """An episode begins: there is no decision to repeat."""
        self._last[:] = self.noop

    def decided(self, action: np.ndarray) -> None:
        """A decision's action [1, ...] acted."""
        self._last[:] = action

    def action(self, legal: np.ndarray | None = None) -> np.ndarray:
        """The action [1, ...] of a frame without a decision; ``legal`` [A] bool: the mask of that frame."""
        if self._kind == "random":
            return self._random(legal)
        action = self._last if self._kind == "repeat" else self.noop
        if legal is None or self.is_legal(action, legal):
            return action
        return self._of_parts([int(np.argmax(part)) for part in self._parts(legal)])

    def is_legal(self, action: np.ndarray, legal: np.ndarray) -> bool:
        """Whether ``action`` [1, ...] is allowed by the mask ``legal`` [A] of its frame."""
        chosen = action.reshape(-1)
        return not self._spec.choices or all(
            bool(part[choice]) for part, choice in zip(self._parts(legal), chosen, strict=True)
        )

    def _random(self, legal: np.ndarray | None) -> np.ndarray:
        draw = self._generator
        if legal is not None and self._spec.choices:
            return self._of_parts([int(draw.choice(_allowed(part))) for part in self._parts(legal)])
        if self._spec.choices:
            return self._of_parts([int(draw.integers(choices)) for choices in self._spec.choices])
        shape = (1, *self._spec.shape)
        if not (np.isfinite(self._low).all() and np.isfinite(self._high).all()):
            return np.clip(draw.standard_normal(shape), self._low, self._high).astype(np.float32)
        return np.asarray(draw.uniform(self._low, self._high, shape), np.float32)

    def _parts(self, legal: np.ndarray) -> list[np.ndarray]:
        return np.split(legal, np.cumsum(self._spec.choices)[:-1])

    def _of_parts(self, chosen: list[int]) -> np.ndarray:
        action = self._spec.array.zeros(1)
        action[0] = chosen[0] if self._spec.kind == "discrete" else chosen
        return action

    def state(self) -> ArrayDict:
        """The last decision's action and the generator."""
        return {"last": self._last.copy(), "generator": pack_generator(self._generator)}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""
        self._last[:] = state["last"]
        self._generator = unpack_generator(np.asarray(state["generator"]))


def _allowed(legal: np.ndarray) -> np.ndarray:
    """The choices that ``legal`` allows; all where it allows none, for the environment to complain."""
    return np.flatnonzero(legal if legal.any() else np.ones_like(legal))


def _bounds(spec: ActionSpec) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest of each component, shaped to fit [1, *shape]; infinite where there are none."""
    if spec.choices or not spec.low:
        return np.array(-np.inf), np.array(np.inf)
    low, high = np.asarray(spec.low, np.float64), np.asarray(spec.high, np.float64)
    if low.size > 1:
        low, high = low.reshape(spec.shape), high.reshape(spec.shape)
    return low, high
