"""Recurrent cores whose gradient does not end where an unroll begins: exact real-time recurrent learning (RTRL).

Inside an unroll gradients are those of ordinary backpropagation through time. Each state of a core here depends on the
parameters of its own unit alone, so its sensitivities to them have the parameters' own shape, for each episode; the
gradient that reaches the state before the unroll, times those, is all that is missing (``carry_over``). They need to be
renewed once per unroll, not once per row.

Source: Irie et al. 2024, "Exploring the Promise and Limits of Real-Time Recurrent Learning", section 3; the form with
one boundary term follows from its equations, as the weights are the same all through an unroll.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from offbeat.networks.autocast import without_autocast
from offbeat.networks.exact import exact
from offbeat.types import CoreState, TensorDict

Gradient = Literal["rtrl", "tbptt"]
"""Whether gradients reach past the beginning of an unroll, or are truncated there."""


ALIGNED = 16
"""Rows of a trace begin at multiples of so many numbers: products of matrices are up to three times as fast then."""


LARGE = 2**15
"""Numbers in one episode's part of a trace from which on nothing of it is copied: it is gone through in place, episode
by episode where those do not lie side by side."""


class Steps(NamedTuple):
    """What an unroll leaves behind for ``TracedCore.advance``: its inputs [T, B, D], and what the core needs."""

    x: Tensor
    local: Any


class Rows(NamedTuple):
    """What ``TracedCore.run`` returns of T rows of B episodes."""

    output: Tensor  # [T, B, ``output_size``]
    carry: TensorDict  # the state after row T - 1: name -> [B, N]
    local: Any  # what ``advance`` needs of these rows


class TracedCore(nn.Module):
    """Base of such cores: what is between features and heads, see ``offbeat.networks.encoder.Core``.

    The state has two parts. The *carry* is what the next row is computed from, name -> [B, N]. The *trace* is the
    sensitivities of the carry to the parameters, ``carry.parameter`` -> [B, *parameter]. A state without a trace, as
    actors have it, stands for one of zeros before the unroll, and leads to a state without one.

    Attributes:
        carried: names in the carry.
        traced: names of the parameters that the recurrence depends on.
        shared: parts of the trace that are another one times a number, and not kept: name -> (name, number).
        hidden_size: width N of the carry.
        output_size: width of what it gives.
    """

    carried: tuple[str, ...]
    traced: tuple[str, ...]
    shared: Mapping[str, tuple[str, float]] = MappingProxyType({})
    output_size: int

    def __init__(self, hidden_size: int, gradient: Gradient) -> None:
        """Width N of the carry. ValueError for a ``gradient`` that is not known."""
        super().__init__()
        if gradient not in get_args(Gradient):
            raise ValueError(f"gradient={gradient!r} is not allowed; choose one of: {', '.join(get_args(Gradient))}")
        if hidden_size < 1:
            raise ValueError(f"hidden_size={hidden_size} is out of range; allowed: 1 or above")
        self.hidden_size, self.gradient = hidden_size, gradient

    @abstractmethod
    def run(self, x: Tensor, carry: TensorDict, keep: Tensor, trained: int) -> Rows:
        """T rows ``x`` [T, B, D] from ``carry``, which is multiplied by ``keep`` [T, B, 1], 0 or 1, before each.

        ``trained``: rows that ``advance`` will be asked for; 0: none.
        """

    @abstractmethod
    def advance(self, trace: TensorDict, at: list[int], steps: Steps) -> None:
        """Change ``trace`` from what it was before an unroll to what it is after it; arguments as of ``follow``."""

    def initial_carry(self, batch: int) -> TensorDict:
        """The carry at the starts of ``batch`` episodes: zeros, on the module's device."""
        like = self.get_parameter(self.traced[0])
        return {name: like.new_zeros(batch, self.hidden_size) for name in self.carried}

    def initial_trace(self, batch: int) -> TensorDict:
        """The trace there: zeros. With truncated gradients there is none."""
        if self.gradient == "tbptt":
            return {}
        made = {}
        for state in self.carried:
            for name in self.traced:
                if (full := f"{state}.{name}") not in self.shared:
                    weight = self.get_parameter(name)
                    made[full] = aligned(weight, batch, *weight.shape)
        return made

    def initial_state(self, batch: int) -> CoreState:
        """Carry and trace at the starts of ``batch`` episodes."""
        return self.initial_carry(batch) | self.initial_trace(batch)

    def forward(self, x: Tensor, state: CoreState, first: Tensor) -> tuple[Tensor, CoreState]:
        """Run T rows, in float32 also under autocast: rounding would build up in carry and trace.

        Args:
            x: [T, B, D] float.
            state: before row 0, as ``initial_state``; without its trace: one of zeros, which is not followed.
            first: [T, B] bool, rows that start an episode; carry and trace are zeroed before them.

        Returns:
            Outputs [T, B, ``output_size``] float32 (float64 where ``x`` is), and the state after row T - 1. With a
            trace no gradient flows back through that, as the trace will bring it. The gradients of the parameters are
            exact as long as the weights are those that the trace was made with.
        """
        trace = {name: value for name, value in state.items() if name not in self.carried}
        if not trace:
            output, after, _ = self._run(x, state, first, 0)
            return output, after
        at = list(range(x.shape[1]))
        output, after, steps = self.follow(x, state, first, trace, at, x.shape[0])
        later = {name: aligned(value, *value.shape).copy_(value) for name, value in trace.items()}
        with without_autocast(x.device.type):
            self.advance(later, at, steps)
        return output, {name: value.detach() for name, value in after.items()} | later

    def follow(
        self, x: Tensor, carry: TensorDict, first: Tensor, trace: TensorDict, at: list[int], trained: int
    ) -> tuple[Tensor, TensorDict, Steps]:
        """The same with a trace that may be that of other episodes too, and that stays as it is until ``advance``.

        Args:
            x, first: as of ``forward``.
            carry: before row 0; no gradient flows back into it.
            trace: name -> [E, ...], before row 0.
            at: [B], where each episode lies in it; -1: it has none, which stands for zeros.
            trained: ``advance`` goes so many rows further.

        Returns:
            Outputs, the carry after row T - 1, and what ``advance`` needs.
        """
        if torch.is_grad_enabled():
            parameters: TensorDict = {name: self.get_parameter(name) for name in self.traced}
            carry = {name: carry[name].detach() for name in self.carried}
            carry = carry_over(carry, parameters, trace, at, self.shared)
        output, after, local = self._run(x, carry, first, trained)
        return output, after, Steps(exact(x.detach()[:trained]), local)

    def _run(self, x: Tensor, carry: TensorDict, first: Tensor, trained: int) -> Rows:
        with without_autocast(x.device.type):
            x = exact(x)
            carry = {name: carry[name].to(x.dtype) for name in self.carried}
            return self.run(x, carry, (~first).to(x.dtype).unsqueeze(-1), trained)


def aligned(like: Tensor, *shape: int) -> Tensor:
    """Zeros of ``shape`` whose rows begin at multiples of ``ALIGNED`` numbers, with dtype and device of ``like``."""
    if len(shape) < 3:
        return like.new_zeros(shape)
    wide = -(-shape[-1] // ALIGNED) * ALIGNED
    return like.new_zeros(*shape[:-1], wide)[..., : shape[-1]]


def carry_over(
    carry: TensorDict,
    parameters: TensorDict,
    trace: TensorDict,
    at: list[int],
    shared: Mapping[str, tuple[str, float]] = MappingProxyType({}),
) -> TensorDict:
    """``carry`` as it is; the gradient that reaches it reaches the parameters too, by way of their sensitivities.

    Args:
        carry: name -> [B, N].
        parameters: name -> [N, ...].
        trace: ``carry.parameter`` -> [E, N, ...], the derivative of each unit's carry by its own parameters.
        at: [B], where each column lies in it; -1: nowhere.
        shared: parts that are not in it but equal to another one times a number.
    """
    names = [f"{state}.{name}" for name in parameters for state in carry]
    known = [shared.get(name, (name, 1.0)) for name in names]
    tensors = [*carry.values(), *parameters.values(), *(trace[name] for name, _ in known)]
    return dict(zip(carry, _CarryOver.apply(at, [factor for _, factor in known], len(carry), *tensors)))


class _CarryOver(torch.autograd.Function):
    """(carries, parameters, trace) -> carries; backward: ``sum_b a[b] * S[at[b]]`` for each parameter."""

    @staticmethod
    def forward(ctx: Any, at: list[int], factors: list[float], carries: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.at, ctx.factors = at, factors
        ctx.save_for_backward(*tensors[-len(factors) :])
        return tuple(carry.clone() for carry in tensors[:carries])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        traces, count = ctx.saved_tensors, len(grads)
        found = []
        for index in range(0, len(traces), count):
            parts = zip(grads, traces[index : index + count], ctx.factors[index : index + count])
            found.append(_reached(parts, ctx.at))
        return (None, None, None, *grads, *found, *[None] * len(traces))


def _reached(parts: Iterable[tuple[Tensor, Tensor, float]], at: list[int]) -> Tensor:
    """``sum factor grad[b, n] trace[at[b], n, ...]`` over ``parts`` (grad, trace, factor) and b: [N, ...]."""
    columns, rows = places(at)
    found: Tensor | None = None
    for grad, trace, factor in parts:
        wide = grad.view(*grad.shape, *[1] * (trace.dim() - 2))
        if found is None:
            found = torch.zeros(trace.shape[1:], dtype=grad.dtype, device=grad.device)
        if found.numel() < LARGE:
            found.add_((wide[columns] * trace[rows]).sum(0), alpha=factor)
            continue
        for b, row in enumerate(at):
            if row >= 0:
                found.addcmul_(wide[b], trace[row], value=factor)
    assert found is not None, "a core has a carry"
    return found


def products(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``jacobian`` [T, ...]: for each row the product of those of all later rows [T, ...], and of all rows [...]."""
    later, whole = torch.empty_like(jacobian), torch.ones_like(jacobian[0])
    for t in range(len(later) - 1, -1, -1):
        later[t] = whole
        whole = whole * jacobian[t]
    return later, whole


def renew(trace: Tensor, at: list[int], factor: Tensor, added: Tensor, by: Tensor | None = None) -> None:
    """``trace[at[b]] = factor[b] * trace[at[b]] + added[b]`` for each column b that is in it.

    Args:
        trace: [E, N] or [E, N, D], changed in place.
        at: [B], as of ``TracedCore.follow``.
        factor: [B, N].
        added: [B, N]; with ``by`` [B, T, D] it is the product of ``added`` [B, N, T] with that.
    """
    columns, rows = places(at)
    large = by is not None and trace.shape[1:].numel() >= LARGE
    if by is not None and large:
        by = aligned(by, *by.shape).copy_(by)
        if not isinstance(rows, slice):
            for b, row in enumerate(at):
                if row >= 0:
                    trace[row].mul_(factor[b].unsqueeze(-1)).addmm_(added[b], by[b])
            return
        trace, by = _with_padding(trace), _with_padding(by)
    part = trace[rows]
    if by is None:
        part.mul_(factor[columns]).add_(added[columns])
    else:
        part.mul_(factor[columns].unsqueeze(-1)).baddbmm_(added[columns], by[columns])
    if not isinstance(rows, slice):  # then it is a copy
        trace[rows] = part


def _with_padding(values: Tensor) -> Tensor:
    """What ``aligned`` made [E, N, D] with all of its rows, in one piece; anything else as it is."""
    count, width = values.shape[1], values.stride(1)
    if width % ALIGNED or not 0 <= width - values.shape[2] < ALIGNED or values.stride(0) != count * width:
        return values
    return values.as_strided((values.shape[0], count, width), values.stride())


def places(at: list[int]) -> tuple[slice | list[int], slice | list[int]]:
    """Which columns are in a trace, and where; as slices, which copy nothing, where they lie side by side."""
    if at and at[0] >= 0 and all(row == at[0] + b for b, row in enumerate(at)):
        return slice(0, len(at)), slice(at[0], at[0] + len(at))
    columns = [b for b, row in enumerate(at) if row >= 0]
    return columns, [at[b] for b in columns]
