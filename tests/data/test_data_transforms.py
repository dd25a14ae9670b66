"""Scaling and augmentation: ranges, determinism, independence of the batch."""

from __future__ import annotations

import pytest
import torch

from tinytrain_dist.data import transforms
from tinytrain_dist.data.transforms import apply_augmentation, augment, draw_augmentation, to_float, to_unit


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_network_input() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert to_unit(pixels).tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert torch.allclose(to_unit(to_float(pixels)), to_unit(pixels), atol=1e-6)


def test_deterministic_and_the_input_is_kept() -> None:
    images = torch.rand(20, 3, 24, 20, generator=seeded(1))
    before = images.clone()
    one, two = augment(images, seeded()), augment(images, seeded())
    assert torch.equal(one, two) and torch.equal(images, before) and one.shape == images.shape
    assert not torch.equal(one, augment(images, seeded(2)))


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.rand(12, 3, 16, 16, generator=seeded(1))
    draws = draw_augmentation(12, height=16, width=16, generator=seeded())
    whole = apply_augmentation(images, draws=draws)
    parts = [apply_augmentation(images[i : i + 5], draws=draws[i : i + 5]) for i in range(0, 12, 5)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


def test_ranges_and_probabilities() -> None:
    draws = draw_augmentation(20_000, height=84, width=40, generator=seeded())
    still = (draws.saturation == 1) & (draws.contrast == 1) & (draws.brightness == 0) & (draws.shift == 0).all(1)
    assert still.float().mean() == pytest.approx(0.1, abs=0.01)
    assert draws.flipped.float().mean() == pytest.approx(0.45, abs=0.015)
    assert 0.24 < draws.brightness.max() <= 0.25 and -0.25 <= draws.brightness.min() < -0.24
    assert 0 <= draws.saturation.min() < 0.01 and 1.99 < draws.saturation.max() < 2
    assert 0.5 <= draws.contrast.min() < 0.51 and 1.49 < draws.contrast.max() < 1.5
    assert draws.shift.abs().amax(0).tolist() == [11, 5]


def test_a_tenth_is_left_exactly_as_it_was() -> None:
    images = torch.rand(200, 3, 8, 8, generator=seeded(1))
    unchanged = (augment(images, seeded()) == images).flatten(1).all(1)
    assert 8 <= int(unchanged.sum()) <= 35


def test_flip_then_shift() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4) / 16
    draws = transforms.Augmentation(
        flipped=torch.tensor([True]),
        brightness=torch.zeros(1),
        saturation=torch.ones(1),
        contrast=torch.ones(1),
        shift=torch.tensor([[1, -2]]),
    )
    moved = apply_augmentation(images, draws=draws)[0, 0] * 16
    fill = transforms.FILL * 16
    assert moved.tolist() == [[fill] * 4, [1, 0, fill, fill], [5, 4, fill, fill], [9, 8, fill, fill]]


def test_colour_equals_the_three_steps_of_the_original() -> None:
    images = torch.rand(30, 3, 8, 8, generator=seeded(1))
    draws = draw_augmentation(30, height=8, width=8, generator=seeded())
    b, s, c = (v[:, None, None, None] for v in (draws.brightness, draws.saturation, draws.contrast))
    x = images + b
    x = (x - x.mean(1, keepdim=True)) * s + x.mean(1, keepdim=True)
    x = (x - x.mean((1, 2, 3), keepdim=True)) * c + x.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(transforms._colour(images, draws), x, atol=1e-5)


def test_pixels_must_be_scaled_first() -> None:
    with pytest.raises(AssertionError, match="use to_float"):
        augment(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), seeded())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_compiled_augmentation_equals_the_torch_one(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(12, 3, 17, 20, generator=seeded()).contiguous(memory_format=layout)
    draws = draw_augmentation(12, height=17, width=20, generator=seeded(4))
    fast = apply_augmentation(images, draws=draws)
    monkeypatch.setattr(transforms, "compiler", lambda: None)
    plain = apply_augmentation(images, draws=draws)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    assert fast.is_contiguous(memory_format=layout)
