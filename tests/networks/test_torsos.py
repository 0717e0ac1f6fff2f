"""Torsos: what they do to pixels, vectors and integers, and how large they are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from offbeat.networks import torsos
from offbeat.networks.joined import missing
from offbeat.networks.torsos import Torso, choose_torso
from offbeat.types import ArraySpec

ATARI = ArraySpec((4, 84, 84), "uint8", 0, 255)
GRID = ArraySpec((6, 10, 10), "uint8", 0, 1)
VECTOR = ArraySpec((3,))
CHOICE = ArraySpec((), "int64", 0, 4)


def count(module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("kind", "spec", "size", "weights"),
    [
        # Convolutions and the layer after them, counted by hand from the published descriptions.
        ("nature", ATARI, 512, (4 * 64 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 49 + 1) * 512),
        ("shallow", ATARI, 256, (4 * 64 + 1) * 16 + (16 * 16 + 1) * 32 + (32 * 81 + 1) * 256),
        ("resnet", ATARI, 256, 1_091_038 - (6 + 1) * (257 + 1)),  # R2AC's published count, less reward input and heads
        ("minatar", GRID, 128, (6 * 9 + 1) * 16 + (16 * 64 + 1) * 128),
        # The platform's published count with 4 actions, less its heads and a layer that nothing trains.
        ("strided", ATARI, 512, 2_738_181 - (512 + 1) * (4 + 1) - (512 + 1) * 512),
        ("mlp", VECTOR, 64, (3 + 1) * 64 + (64 + 1) * 64),
    ],
)
def test_sizes(kind, spec, size, weights):
    torso = Torso({"observation": spec}, kind)
    assert torso.output_size == size
    assert count(torso) == weights
    x = torch.zeros(2, 3, *spec.shape).to(getattr(torch, spec.dtype))
    assert torso({"observation": x}).shape == (2, 3, size)


@pytest.mark.parametrize("kind", ["nature", "shallow", "resnet", "strided"])
def test_scaling_in_the_weights_equals_scaling_the_image(kind):
    torch.manual_seed(0)
    stored, scaled = Torso({"image": ATARI}, kind), Torso({"image": ArraySpec(ATARI.shape, "float32")}, kind)
    scaled.load_state_dict(stored.state_dict())
    image = torch.randint(256, (2, 2, *ATARI.shape), dtype=torch.uint8)
    torch.testing.assert_close(stored({"image": image}), scaled({"image": image.float() / 255}), rtol=1e-4, atol=1e-5)


def test_flags_are_not_scaled():
    torso = Torso({"image": GRID}, "minatar")
    image = torch.randint(2, (2, 2, *GRID.shape), dtype=torch.uint8)
    conv = torso.trunks[0][0]
    expected = (
        functional.conv2d(image.flatten(0, 1).float(), conv.weight, conv.bias).relu().permute(0, 2, 3, 1).flatten(1)
    )
    expected = torso.image_layer(expected).relu().reshape(2, 2, -1)
    torch.testing.assert_close(torso({"image": image}), expected)


@pytest.mark.parametrize("kind", ["nature", "shallow", "resnet", "strided"])
def test_channels_last_changes_layout_only(kind):
    torch.manual_seed(0)
    torso = Torso({"image": ATARI}, kind)
    image = torch.randint(256, (2, 2, *ATARI.shape), dtype=torch.uint8)
    plain = torso({"image": image})
    torso.channels_last = True
    assert torso.channels_last
    torch.testing.assert_close(torso({"image": image}), plain, rtol=1e-4, atol=1e-5)
    assert all(weight.is_contiguous() for weight in torso.parameters())


@pytest.mark.parametrize("kind", ["nature", "shallow", "resnet"])
def test_centered_filters_see_contrast_only(kind):
    torch.manual_seed(0)
    torso = Torso({"image": ATARI}, kind, centered=True)
    image = torch.randint(100, (1, 2, *ATARI.shape), dtype=torch.uint8)
    first = torso.trunks[0][0]
    inner = (..., slice(1, -1), slice(1, -1))  # away from the padding of resnet
    plain, brighter = first(image[0])[inner], first(image[0] + 100)[inner]
    torch.testing.assert_close(brighter, plain, rtol=1e-4, atol=1e-4)
    filters = first.weight.detach() - first.weight.detach().mean((1, 2, 3), keepdim=True)
    by_hand = torch.nn.functional.conv2d(image[0] / 255, filters, first.bias, first.stride, first.padding)
    torch.testing.assert_close(first(image[0]), by_hand, rtol=1e-4, atol=1e-4)
    torso({"image": image}).sum().backward()
    mean = first.weight.grad.mean((1, 2, 3)).abs()
    assert first.weight.grad.any()
    assert (mean < 1e-5 * first.weight.grad.abs().amax((1, 2, 3)).clamp(1)).all()  # brightness is never learnt either


def test_centered_filters_are_not_silenced_by_a_background():
    """Small things on an even field, as in Pong: some plain filters never answer, centered ones do."""
    torch.manual_seed(1)
    image = torch.full((1, 64, *ATARI.shape), 87, dtype=torch.uint8)
    for i in range(64):
        row, column = torch.randint(0, ATARI.shape[1] - 4, (2,)).tolist()
        image[0, i, :, row : row + 4, column : column + 2] = 236

    def silent(centered: bool) -> int:
        layers = Torso({"image": ATARI}, "shallow", centered=centered).trunks[0]
        torch.nn.init.zeros_(layers[0].bias)
        return int((layers[1](layers[0](image[0])).amax((0, 2, 3)) == 0).sum())

    assert silent(centered=False) >= 3
    assert silent(centered=True) == 0


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("kind", "spec"), [("nature", ATARI), ("shallow", ATARI), ("minatar", GRID), ("strided", ATARI)]
)
@pytest.mark.parametrize("trained", [None, 2])
@pytest.mark.parametrize("feature_size", [0, -1])
def test_joined_layers_change_nothing(kind, spec, channels_last, trained, feature_size, monkeypatch):
    """In bfloat16 all layers are one step: the same features and gradients as one by one, bit by bit."""
    torch.manual_seed(0)
    torso = Torso({"image": spec}, kind, feature_size=feature_size)
    torso.channels_last = channels_last
    image = torch.randint(int(spec.high) + 1, (3, 5, *spec.shape), dtype=torch.uint8)
    joined = []

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        torso.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = torso({"image": image}, trained)
        (features.float() * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        return features.detach(), [weight.grad.clone() for weight in torso.parameters()]

    monkeypatch.setattr(torsos, "joined", lambda *given, f=torsos.joined: joined.append(1) or f(*given))
    features, gradients = run()
    assert len(joined) == 1
    monkeypatch.setattr(torsos, "joins", lambda device: False)
    apart, gradients_apart = run()
    assert len(joined) == 1
    assert features.any()
    assert torch.equal(features, apart)
    for gradient, known in zip(gradients, gradients_apart, strict=True):
        assert torch.equal(gradient, known)


@pytest.mark.parametrize("bf16", [False, True])
def test_images_cast_beforehand_give_the_same_features(bf16):
    torch.manual_seed(0)
    torso = Torso({"image": ATARI, "vector": VECTOR}, "shallow")
    torso.channels_last = True
    image = torch.randint(256, (2, 3, *ATARI.shape), dtype=torch.uint8)
    observation = {"image": image, "vector": torch.randn(2, 3, 3)}
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        cast = torso.cast(observation)
        assert cast["image"].dtype == (torch.bfloat16 if bf16 else torch.float32)
        assert torch.equal(torso(cast), torso(observation))


def test_dictionary_joins_images_vectors_and_one_hot_integers():
    specs = {"choice": CHOICE, "image": ATARI, "vector": VECTOR, "map": GRID}
    torso = Torso(specs, "resnet")
    assert torso.output_size == 256 + 5 + 3
    observation = {
        "choice": torch.tensor([[0, 4]]),
        "image": torch.randint(256, (1, 2, *ATARI.shape), dtype=torch.uint8),
        "vector": torch.randn(1, 2, 3),
        "map": torch.randint(2, (1, 2, *GRID.shape), dtype=torch.uint8),
    }
    features = torso(observation)
    torch.testing.assert_close(features[..., 256:261], functional.one_hot(observation["choice"], 5).float())
    torch.testing.assert_close(features[..., 261:], observation["vector"])
    observation["map"] = 1 - observation["map"]
    assert not torch.equal(torso(observation)[..., :256], features[..., :256])


def test_mlp_takes_everything_flattened():
    specs = {"choice": CHOICE, "pixels": ArraySpec((2, 2, 2), "uint8", 0, 255), "vector": VECTOR}
    torso = Torso(specs, "mlp", hidden_size=(7,), activation="relu")
    pixels = torch.randint(256, (1, 2, 2, 2, 2), dtype=torch.uint8)
    choice, vector = torch.tensor([[1, 2]]), torch.randn(1, 2, 3)
    joined = torch.cat([functional.one_hot(choice, 5).float(), pixels.reshape(1, 2, 8) / 255, vector], -1)
    expected = torso.mlp[0](joined).relu()
    torch.testing.assert_close(torso({"choice": choice, "pixels": pixels, "vector": vector}), expected)


def test_auto():
    assert choose_torso({"observation": ATARI}) == "nature"
    assert choose_torso({"observation": GRID}) == "minatar"
    assert choose_torso({"observation": VECTOR}) == "mlp"
    assert choose_torso({"observation": ATARI, "map": GRID}) == "minatar"
    assert choose_torso({"observation": ArraySpec((1, 2, 5), "uint8")}) == "mlp"


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"torso='nature' needs an image \[C, H, W\] among the observations, got"):
        Torso({"observation": VECTOR}, "nature")
    with pytest.raises(ValueError, match=r"torso='nature' needs images of at least 36 pixels a side, got observation"):
        Torso({"observation": GRID}, "nature")


CAMERA = ArraySpec((3, 24, 24), "uint8", 0, 255)
MIXED = {"atari": ATARI, "camera": CAMERA, "speed": VECTOR, "count": CHOICE}


def draw(specs: dict[str, ArraySpec], rows: int = 2, copies: int = 3) -> dict[str, torch.Tensor]:
    """Observations [T, B, ...] of these specs."""

    def one(spec: ArraySpec) -> torch.Tensor:
        if spec.dtype == "float32":
            return torch.randn(rows, copies, *spec.shape)
        return torch.randint(int(spec.high) + 1, (rows, copies, *spec.shape)).to(getattr(torch, spec.dtype))

    return {key: one(spec) for key, spec in specs.items()}


def test_per_key_sends_each_key_through_what_suits_it():
    """Written out once more: two trunks, joined by one layer; an mlp; a layer behind both."""
    torch.manual_seed(0)
    torso, seen = Torso(MIXED, "per_key", (32, 16), "relu"), draw(MIXED)
    large = functional.relu(torso.trunks[0](seen["atari"].flatten(0, 1)).permute(0, 2, 3, 1).flatten(1))
    small = functional.relu(torso.trunks[1](seen["camera"].flatten(0, 1)).permute(0, 2, 3, 1).flatten(1))
    assert large.shape == (6, 64 * 7 * 7) and small.shape == (6, 16 * 22 * 22)
    pictures = functional.relu(torso.image_layer(torch.cat([large, small], 1)))
    first, _, second, _ = torso.mlp
    numbers = torch.cat([seen["speed"], functional.one_hot(seen["count"], 5).float()], -1).flatten(0, 1)
    numbers = second(first(numbers).relu()).relu()
    expected = torso.joint(torch.cat([pictures, numbers], -1)).relu().reshape(2, 3, -1)
    assert torso.output_size == 256 + 16 == expected.shape[-1]
    torch.testing.assert_close(torso(seen), expected)
    expected.sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in torso.parameters())


def test_per_key_of_numbers_alone_is_an_mlp_and_of_pictures_alone_a_trunk():
    torch.manual_seed(0)
    numbers, mlp = Torso({"speed": VECTOR}, "per_key"), Torso({"speed": VECTOR}, "mlp")
    mlp.load_state_dict(numbers.state_dict())
    seen = draw({"speed": VECTOR})
    assert torch.equal(mlp(seen), numbers(seen))
    pictures, nature = Torso({"image": ATARI}, "per_key", feature_size=512), Torso({"image": ATARI}, "nature")
    nature.load_state_dict(pictures.state_dict())
    seen = draw({"image": ATARI})
    assert torch.equal(nature(seen), pictures(seen))


@pytest.mark.parametrize("specs", [MIXED, {"camera": CAMERA, "speed": VECTOR}], ids=["two pictures", "one"])
def test_per_key_has_gradients_from_the_rows_trained_on_only(specs):
    torch.manual_seed(0)
    torso, seen = Torso(specs, "per_key"), draw(specs, rows=3)
    whole, cut = torso(seen), torso(seen, trained=2)
    torch.testing.assert_close(cut, whole)
    wanted = torch.autograd.grad(whole[:2].sum(), list(torso.parameters()))
    for mine, theirs in zip(torch.autograd.grad(cut.sum(), list(torso.parameters())), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_per_key_without_the_layer_after_trunks_joins_them_as_they_are():
    torso = Torso({"camera": CAMERA, "speed": VECTOR}, "per_key", (8,), feature_size=-1)
    assert torso.joint is None and torso.output_size == 16 * 22 * 22 + 8


def test_strided_is_three_convolutions_and_a_layer():
    """Layer by layer, as the platform has it on an Atari picture: 84 pixels a side, then 28, 13 and 6."""
    torch.manual_seed(0)
    torso = Torso({"image": ATARI}, "strided")
    image = torch.randint(256, (1, 3, *ATARI.shape), dtype=torch.uint8)
    first, second, third = (layer for layer in torso.trunks[0] if isinstance(layer, torch.nn.Conv2d))
    x = functional.relu(functional.conv2d(image[0] / 255, first.weight, first.bias, stride=3))
    assert x.shape == (3, 64, 28, 28)
    x = functional.relu(functional.conv2d(x, second.weight, second.bias, stride=2))
    assert x.shape == (3, 64, 13, 13)
    x = functional.relu(functional.conv2d(x, third.weight, third.bias, stride=2))
    assert x.shape == (3, 128, 6, 6)
    layer = torso.image_layer.weight.unflatten(1, (6, 6, 128)).permute(0, 3, 1, 2).flatten(1)  # C, H, W as there
    expected = functional.relu(functional.linear(x.flatten(1), layer, torso.image_layer.bias))
    torch.testing.assert_close(torso({"image": image})[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="torso='strided' needs images of at least 21 pixels a side, got image"):
        Torso({"image": ArraySpec((4, 84, 20), "uint8", 0, 255)}, "strided")
    assert Torso({"image": ArraySpec((1, 21, 21), "uint8", 0, 255)}, "strided", feature_size=-1).output_size == 128


@pytest.mark.parametrize("kind", ["nature", "deep1", "resnet", "strided"])
def test_pictures_as_they_are_stored(kind):
    torch.manual_seed(0)
    raw, scaled = Torso({"image": ATARI}, kind, scale_pixels=False), Torso({"image": ATARI}, kind)
    raw.load_state_dict(scaled.state_dict())
    image = torch.randint(256, (2, 2, *ATARI.shape), dtype=torch.uint8)
    by_hand = Torso({"image": ArraySpec(ATARI.shape, "float32")}, kind)
    by_hand.load_state_dict(scaled.state_dict())
    torch.testing.assert_close(raw({"image": image}), by_hand({"image": image.float()}), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(raw({"image": image}), scaled({"image": image}), atol=1e-2)


def test_pixels_are_only_left_unscaled_where_there_are_convolutions():
    with pytest.raises(ValueError, match="scale_pixels=False means nothing to torso='mlp', which convolves no image"):
        Torso({"image": ATARI}, "mlp", scale_pixels=False)
