"""Torsos: from an observation dictionary to one feature vector per row.

Image trunks: ``nature`` (Mnih et al. 2015), ``shallow`` (Mnih et al. 2013; Espeholt et al. 2018, figure 3 left),
``resnet`` (Espeholt et al. 2018, figure 3 right, the deep net), ``deep1`` and ``deep2`` (Riemer et al. 2024: made of
it, in any width), ``minatar`` (Young & Tian 2019), ``strided`` (of the V-trace platform with elite replay: three
convolutions of 3 x 3, wide, with strides 3, 2 and 2). ``mlp``: everything flattened and joined. ``per_key``: each image
through the trunk that suits its size, the rest through an mlp, then both through a layer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.deep_impala import STRIDES, DeepImpala, least_side
from offbeat.networks.image_conv import ImageConv, Residual
from offbeat.networks.joined import channels_last_vector, joined, joins
from offbeat.types import ArraySpec, TensorDict

KINDS = ("nature", "shallow", "resnet", "deep1", "deep2", "minatar", "strided", "mlp", "per_key")
"""All torsos of offbeat's own."""
FEATURE_SIZES = {
    "nature": 512, "shallow": 256, "resnet": 256, "deep1": 512, "deep2": 512, "minatar": 128, "strided": 512,
    "per_key": 256,
}  # fmt: skip
"""Width of the fully connected layer after each image trunk, as published (``per_key``: ours)."""
_SMALLEST_NATURE_IMAGE = 36  # pixels; anything smaller leaves nothing after its three convolutions
_SMALLEST_IMAGE = 3  # pixels, of minatar's one convolution
_LEAST_SIDES = {"nature": _SMALLEST_NATURE_IMAGE, "shallow": 20, "strided": 21, "minatar": _SMALLEST_IMAGE}  # pixels
_SMALLEST_PICTURE = 8  # numbers a side; tables of numbers that are at least so large are taken for pictures


def choose_torso(observation: dict[str, ArraySpec]) -> str:
    """What ``auto`` stands for: ``nature`` for images of 36 pixels or more, ``minatar`` for smaller, else ``mlp``."""
    sides = [min(spec.shape[1:]) for spec in observation.values() if len(spec.shape) == 3]
    if not sides:
        return "mlp"
    if min(sides) >= _SMALLEST_NATURE_IMAGE:
        return "nature"
    return "minatar" if min(sides) >= _SMALLEST_IMAGE else "mlp"


def image_trunks(observation: dict[str, ArraySpec], kind: str) -> dict[str, str]:
    """The trunk of each image that torso ``kind`` convolves, by its key; what is not among them is flattened."""
    if kind == "per_key":
        chosen = {key: choose_torso({key: spec}) for key, spec in observation.items()}
        return {key: trunk for key, trunk in chosen.items() if trunk != "mlp"}
    return {} if kind == "mlp" else {key: kind for key, spec in observation.items() if len(spec.shape) == 3}


def flattened_pictures(observation: dict[str, ArraySpec], kind: str) -> dict[str, ArraySpec]:
    """The observations that look like pictures, and that torso ``kind`` (not ``auto``) flattens, by their keys.

    Images [C, H, W] that some torso could convolve; of arrays with two, four or more axes those of which two hold 8
    numbers or more.
    """
    trunks = image_trunks(observation, kind)
    return {key: spec for key, spec in observation.items() if key not in trunks and _looks_like_one(spec.shape)}


def _looks_like_one(shape: tuple[int, ...]) -> bool:
    if len(shape) == 3:
        return min(shape[1:]) >= _SMALLEST_IMAGE
    return len(shape) > 1 and sorted(shape)[-2] >= _SMALLEST_PICTURE


def in_two(torso: nn.Module, observation: TensorDict, trained: int) -> Tensor:
    """What ``torso`` gives for all rows [T, B, D], with gradients from the first ``trained`` of them only."""
    # The rows with gradient come first: autocast keeps the weights that it rounded, with or without history.
    first = torso({key: value[:trained] for key, value in observation.items()})
    with torch.no_grad():
        others = torso({key: value[trained:] for key, value in observation.items()})
    return torch.cat([first, others])


class Torso(nn.Module):
    """Encodes observations (key -> [T, B, ...]) into features [T, B, ``output_size``].

    Images (three axes, C, H, W) go through a convolutional trunk each, joined by a fully connected layer; all other
    keys are flattened, integers with an upper bound one-hot encoded, and joined to its output. ``mlp`` flattens images
    too and sends everything through fully connected layers. ``per_key`` has both: its trunks are chosen by the size of
    each image as ``auto`` does, what else there is goes through the layers of ``mlp``, and a layer as wide as both
    follows: heads are linear, and what to do with a picture may depend on the rest.
    """

    def __init__(
        self,
        observation: dict[str, ArraySpec],
        kind: str,
        hidden_size: tuple[int, ...] = (64, 64),
        activation: Literal["tanh", "relu"] = "tanh",
        feature_size: int = 0,
        centered: bool = False,
        width: float = 1.0,
        scale_pixels: bool = True,
    ) -> None:
        """Build for these specs. ``hidden_size``, ``activation``: of ``mlp`` and ``per_key``; the rest: of trunks.

        A ``feature_size`` of 0 is as published; -1: no such layer, features are the trunks' outputs. ``centered``: see
        ``ImageConv``. ``width``: factor on the channels of ``deep1`` and ``deep2``. ``scale_pixels``: bytes of
        convolved images are brought to [0, 1].
        """
        super().__init__()
        self.specs = dict(observation)
        trunks = image_trunks(observation, kind)
        self.image_keys = list(trunks)
        self.vector_keys = [key for key in observation if key not in self.image_keys]
        if kind not in ("mlp", "per_key") and not self.image_keys:
            shapes = {key: spec.shape for key, spec in observation.items()}
            raise ValueError(f"torso={kind!r} needs an image [C, H, W] among the observations, got {shapes}; use 'mlp'")
        self.trunks = nn.ModuleList([_trunk(trunk, self.specs[key], key, width) for key, trunk in trunks.items()])
        for module in self.trunks.modules():
            if isinstance(module, ImageConv):
                module.centered = centered
                module.scale = module.scale if scale_pixels else 1.0
        if not scale_pixels and not self.image_keys:
            raise ValueError(f"scale_pixels=False means nothing to torso={kind!r}, which convolves no image; leave it")
        self.image_layer: nn.Linear | None = None
        flat = sum(_flat_size(trunk, self.specs[key]) for trunk, key in zip(self.trunks, self.image_keys, strict=True))
        if self.image_keys and feature_size >= 0:
            self.image_layer = nn.Linear(flat, feature_size or FEATURE_SIZES[kind])
        size = sum(_vector_size(self.specs[key]) for key in self.vector_keys)
        layers: list[nn.Module] = []
        for width in hidden_size if kind in ("mlp", "per_key") and self.vector_keys else ():
            layers += [nn.Linear(size, width), nn.Tanh() if activation == "tanh" else nn.ReLU()]
            size = width
        self.mlp = nn.Sequential(*layers)
        size += flat if self.image_layer is None else self.image_layer.out_features
        self.joint: nn.Linear | None = None
        if len(self.mlp) and self.image_layer is not None:
            self.joint = nn.Linear(size, size)
        self.output_size = size
        self._double = False

    def _apply(self, fn: Any, recurse: bool = True) -> Torso:
        """What ``double``, ``to`` and the like do; vectors are then cast to the dtype of the weights."""
        super()._apply(fn, recurse)
        self._double = any(parameter.dtype == torch.float64 for parameter in self.parameters())
        return self

    @property
    def channels_last(self) -> bool:
        """Whether images are laid out channels-last in memory inside the trunks (weights stay contiguous)."""
        return any(module.channels_last for module in self.modules() if isinstance(module, ImageConv))

    @channels_last.setter
    def channels_last(self, value: bool) -> None:
        for module in self.modules():
            if isinstance(module, ImageConv):
                module.channels_last = value

    def cast(self, observation: TensorDict) -> TensorDict:
        """The same observations with images cast for the trunks: worth it where two networks read them."""
        images = {}
        trunks: Any = self.trunks
        for trunk, key in zip(trunks, self.image_keys, strict=True):
            images[key] = trunk[0].cast(observation[key].flatten(0, 1)).unflatten(0, observation[key].shape[:2])
        return {**observation, **images}  # not |, which compilers of older torch cannot follow

    def forward(self, observation: TensorDict, trained: int | None = None) -> Tensor:
        """Features [T, B, output_size] of observations, key -> [T, B, ...] in the dtypes of the specs.

        ``trained``: gradients come from the first so many of the T rows only; None: from all.
        """
        if trained is not None and not self._one_step(observation):
            return in_two(self, observation, trained)
        parts = [self._images(observation, trained)] if self.image_keys else []
        if self.vector_keys:
            parts.append(self.mlp(self.vector(observation)))
        features = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return features if self.joint is None else functional.relu(self.joint(features))

    def vector(self, observation: TensorDict) -> Tensor:
        """All that is flattened of observations, key -> [T, B, ...], joined: [T, B, D] in the weights' dtype."""
        vectors = [_encode_vector(observation[key], self.specs[key]) for key in self.vector_keys]
        vector = vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)
        return vector.double() if self._double else vector

    def _one_step(self, observation: TensorDict) -> bool:
        """Whether all layers are one step of autograd."""
        if len(self.image_keys) != 1 or not isinstance(self.trunks[0], Trunk) or len(self.mlp):
            return False
        return joins(observation[self.image_keys[0]].device)

    def _images(self, observation: TensorDict, trained: int | None) -> Tensor:
        """Features [T, B, D] of the images."""
        lead = observation[self.image_keys[0]].shape[:2]
        if self._one_step(observation):
            trunk, image = self.trunks[0], observation[self.image_keys[0]]
            assert isinstance(trunk, Trunk)
            rows = None if trained is None else trained * lead[1]
            features = trunk.joined(image.flatten(0, 1), self.image_layer, rows)
            return (features if self.image_layer is not None else channels_last_vector(features)).unflatten(0, lead)
        images = []
        for trunk, key in zip(self.trunks, self.image_keys, strict=True):
            images.append(channels_last_vector(trunk(observation[key].flatten(0, 1))))
        features = images[0] if len(images) == 1 else torch.cat(images, -1)
        if self.image_layer is not None:
            features = functional.relu(self.image_layer(features))
        return features.unflatten(0, lead)


class Trunk(nn.Sequential):
    """Convolutions, each with a ReLU after it: one step where that pays, see ``networks.joined``."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] through all layers."""
        if joins(x.device):
            return self.joined(x)
        for layer in self:
            x = layer(x)
        return x

    def joined(self, x: Tensor, linear: nn.Linear | None = None, trained: int | None = None) -> Tensor:
        """The same, and ReLU of ``linear`` behind it, where ``joins`` says so; for ``trained`` see ``joined``."""
        first, *others = (layer for layer in self if isinstance(layer, nn.Conv2d))
        assert isinstance(first, ImageConv)
        convolutions = [(first, first.scaled_weight()), *((layer, layer.weight) for layer in others)]
        return joined(first.cast(x), convolutions, linear, trained)


def _trunk(kind: str, spec: ArraySpec, key: str, factor: float) -> nn.Module:
    channels, *sides = spec.shape
    least = _LEAST_SIDES.get(kind, 1)
    least = least_side(kind) if kind in STRIDES else least
    if min(sides) < least:
        raise ValueError(f"torso={kind!r} needs images of at least {least} pixels a side, got {key} {spec.shape}")
    scale = _scale(spec)
    if kind in STRIDES:
        return DeepImpala(kind, spec.shape, factor, scale)
    if kind == "nature":
        return Trunk(
            ImageConv(channels, 32, 8, 4, 0, scale),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(inplace=True),
        )
    if kind == "shallow":
        return Trunk(
            ImageConv(channels, 16, 8, 4, 0, scale),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 4, 2),
            nn.ReLU(inplace=True),
        )
    if kind == "strided":
        return Trunk(
            ImageConv(channels, 64, 3, 3, 0, scale),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 3, 2),
            nn.ReLU(inplace=True),
        )
    if kind == "minatar":
        return Trunk(ImageConv(channels, 16, 3, 1, 0, scale), nn.ReLU(inplace=True))
    if kind != "resnet":
        raise ValueError(f"torso={kind!r} is none of {', '.join(KINDS)}")
    layers: list[nn.Module] = []
    for stage, width in enumerate((16, 32, 32)):
        convolution = (
            ImageConv(channels, width, 3, 1, 1, scale) if stage == 0 else nn.Conv2d(channels, width, 3, padding=1)
        )
        layers += [convolution, nn.MaxPool2d(3, 2, padding=1), Residual(width), Residual(width)]
        channels = width
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _flat_size(trunk: nn.Module, spec: ArraySpec) -> int:
    if isinstance(trunk, DeepImpala):
        return trunk.flat_size  # a forward of the largest takes tens of seconds
    with torch.no_grad():
        return trunk(torch.zeros(1, *spec.shape)).numel()


def _scale(spec: ArraySpec) -> float:
    """The factor that brings stored bytes to [0, 1]; floats and flags are left as they are."""
    return 1.0 / (spec.high or 255.0) if spec.dtype == "uint8" else 1.0


def _num_categories(spec: ArraySpec) -> int:
    """Categories of a bounded integer observation, counted from 0; 0 where it is no such thing."""
    return int(spec.high) + 1 if spec.dtype in ("int32", "int64") and spec.high is not None else 0


def _vector_size(spec: ArraySpec) -> int:
    return torch.Size(spec.shape).numel() * max(_num_categories(spec), 1)


def _encode_vector(x: Tensor, spec: ArraySpec) -> Tensor:
    """Floats [T, B, D] of an observation [T, B, *shape]."""
    if spec.dtype == "float32" and x.dtype == torch.float32 and x.ndim == 3:
        return x
    categories = _num_categories(spec)
    if categories:
        x = functional.one_hot(x.long().clamp(0, categories - 1), categories)
    scale = _scale(spec)
    x = x.to(torch.float32).reshape(*x.shape[:2], -1)
    return x if scale == 1.0 else x * scale
