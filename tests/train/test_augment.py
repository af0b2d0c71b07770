"""Augmentation: what changes samples keeps their form, and what cannot be changed is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from presplit.core.errors import DataError, SpecError
from presplit.train import Recipe, fit
from presplit.train.data import Samples
from presplit.train.fitting.augment import AUGMENTATIONS, augmentation
from presplit.train.zoo import mlp

FORMS = {None: (6, 5), 3: (6, 2, 40), 4: (6, 3, 16, 12)}
MOVES = ("nudge", "shift", "shift_flip", "flip")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_keeps_shapes_and_draws_the_same_from_the_same_state(name: str) -> None:
    found = AUGMENTATIONS[name]
    torch.manual_seed(0)
    x = torch.rand(FORMS[found.axes])
    before, state = x.clone(), torch.get_rng_state()
    y = found.change(x)
    assert y.shape == x.shape and y.dtype == x.dtype and torch.isfinite(y).all()
    assert torch.equal(x, before), "the samples themselves stay"
    assert torch.equal(y, x) == (name == "none")
    torch.set_rng_state(state)
    assert torch.equal(found.change(x), y)
    assert found.change(x[:1].double()).dtype == torch.float64
    if found.axes == 4:
        assert y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize("name", MOVES)
def test_moved_images_are_made_of_the_same_pixels(name: str) -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 1 + 6 * 2 * 16 * 8).view(6, 2, 16, 8)
    y = AUGMENTATIONS[name].change(x)
    for ours, theirs in zip(y, x, strict=True):
        assert set(ours[ours > 0].tolist()) <= set(theirs.flatten().tolist()), "of the same image"
        assert (ours > 0).float().mean() >= (15 / 16) * (7 / 8) - 0.13


def test_a_nudge_moves_an_image_by_a_pixel_at_most() -> None:
    torch.manual_seed(0)
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 10, 20] = 1
    places = AUGMENTATIONS["nudge"].change(dot)[:, 0].nonzero()
    assert len(places) == 200 and {
        tuple(place) for place in (places[:, 1:] - torch.tensor([10, 20])).tolist()
    } == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_a_crop_shows_half_of_the_image_at_least_and_nothing_from_outside() -> None:
    """Images that count their rows and columns say where their corners came from."""
    torch.manual_seed(0)
    rows = torch.arange(32.0)[:, None].expand(32, 24)
    columns = torch.arange(24.0).expand(32, 24)
    x = torch.stack([rows, columns]).expand(300, 2, 32, 24)
    y = AUGMENTATIONS["crop"].change(x)
    tall = (y[:, 0, -2, 5] - y[:, 0, 1, 5]) / 29
    wide = (y[:, 1, 5, -2] - y[:, 1, 5, 1]) / 21
    area, ratio = tall * wide, tall / wide
    assert 0.49 < area.min() < 0.55 and 0.9 < area.max() < 1.02
    assert 0.74 < ratio.min() < 0.85 and 1.17 < ratio.max() < 1.35
    assert y[:, 0].min() < 1 and y[:, 0].max() > 30, "parts reach every border"


def test_a_rotation_turns_by_15_degrees_at_most_whatever_the_sides() -> None:
    torch.manual_seed(0)
    rows = torch.arange(32.0)[:, None].expand(32, 64)
    y = AUGMENTATIONS["rotate"].change(rows.expand(300, 1, 32, 64))
    down = y[:, 0, 17, 32] - y[:, 0, 15, 32]
    across = y[:, 0, 16, 33] - y[:, 0, 16, 31]
    angle = torch.atan2(across, down).rad2deg()
    assert 14 < angle.max() < 15.1 and -15.1 < angle.min() < -14
    torch.testing.assert_close(down.hypot(across), torch.full((300,), 2.0), atol=1e-3, rtol=0)


def test_colours_of_a_grey_picture_stay_grey_and_those_of_others_change() -> None:
    torch.manual_seed(0)
    grey = torch.full((200, 3, 4, 4), 0.5)
    grey[:, :, 0] = 0.1
    y = AUGMENTATIONS["colour"].change(grey)
    torch.testing.assert_close(y[:, 0], y[:, 2], atol=1e-6, rtol=0)
    bright, contrast = y.mean((1, 2, 3)) / 0.4, (y[:, 0, 1] - y[:, 0, 0])[:, 0] / 0.4
    assert 0.6 <= bright.min() < 0.65 and 1.35 < bright.max() <= 1.4001
    assert 0.35 < contrast.min() < 0.5 and 1.5 < contrast.max() < 1.97
    red = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1).expand(200, 3, 4, 4)
    saturation = AUGMENTATIONS["colour"].change(red)[:, :, 0, 0]
    spread = (saturation[:, 0] - saturation[:, 1]) / saturation.mean(1) * 4 / 3
    assert 0.36 <= spread.min() < 0.5 and 1.6 < spread.max() < 1.97, "contrast times saturation"


def test_half_of_the_images_have_a_box_erased_in_one_colour() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 3, 20, 30)
    y = AUGMENTATIONS["erase"].change(x)
    gone = (y != x).any(1)
    shares = gone.float().mean((1, 2))
    assert 0.4 < (shares > 0).float().mean() < 0.6
    assert 0.01 < shares[shares > 0].min() < 0.05 and 0.25 < shares.max() < 0.36
    first = int(shares.argmax())
    box = gone[first].nonzero()
    sides = box.max(0).values - box.min(0).values + 1
    assert int(sides.prod()) == len(box), "a whole box"
    assert len(y[first][:, gone[first]].unique(dim=1)[0]) == 1


def test_a_trivial_augmentation_does_one_thing_to_an_image_or_nothing() -> None:
    """Of images with a red square a tenth stays, a third gets other colours, others move."""
    torch.manual_seed(0)
    x = torch.zeros(400, 3, 24, 24)
    x[:, 0, 8:16, 8:16], x[:, 1:, 8:16, 8:16] = 0.5, 0.3
    y = AUGMENTATIONS["trivial"].change(x)
    stays = (y - x).abs().amax((1, 2, 3)) < 1e-3
    moved = ((y[:, 0] > 0.01) != (x[:, 0] > 0.01)).flatten(1).any(1)
    middle = (y[:, :, 10:14, 10:14] - x[:, :, 10:14, 10:14]).abs().flatten(1)
    coloured = middle.median(1).values > 0.005
    assert 0.05 < stays.float().mean() < 0.2 and 0.4 < moved.float().mean() < 0.7
    assert 0.2 < coloured.float().mean() < 0.4
    torch.testing.assert_close(y[stays], x[stays], atol=1e-3, rtol=0)


def test_a_sound_comes_earlier_or_later_by_an_eighth_at_most() -> None:
    torch.manual_seed(0)
    click = torch.zeros(300, 2, 80)
    click[:, :, 40] = 1
    places = AUGMENTATIONS["later"].change(click).nonzero()
    assert len(places) == 600 and set(places[:, 2].tolist()) == set(range(30, 51))


def test_loudness_and_noise_stay_in_their_ranges() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 1, 500) * 7
    louder = (AUGMENTATIONS["louder"].change(x) / x)[:, 0, 0]
    assert 0.5 <= louder.min() < 0.52 and 1.9 < louder.max() <= 2
    noise = (AUGMENTATIONS["noise"].change(x) - x).std(2) / x.std(2)
    assert noise.min() < 0.002 and 0.09 < noise.max() < 0.11


def test_augmentations_joined_by_plus_come_one_after_the_other() -> None:
    x = torch.rand(5, 3, 8, 8)
    torch.manual_seed(0)
    joined = augmentation("crop+flip")(x)
    torch.manual_seed(0)
    assert torch.equal(joined, AUGMENTATIONS["flip"].change(AUGMENTATIONS["crop"].change(x)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("flap", "augment: no augmentation named 'flap' .nearest: flip.*; there are: none, nudge"),
        ("crop+flap", "augment: no augmentation named 'flap'"),
        ("crop,flip", "no augmentation named 'crop,flip'.* several are joined by [+]"),
        ("crop+", "no augmentation named ''"),
    ],
)
def test_augmentations_on_no_shelf_are_refused(names: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        augmentation(names)


def test_samples_of_another_form_are_refused_before_training() -> None:
    flat = Samples(torch.rand(8, 4).numpy(), torch.arange(8).numpy() % 2)
    wide = Samples(torch.rand(8, 1, 2, 2).numpy() * 3, flat.y)
    for samples, names, message in (
        (flat, "noise+crop", r"augment: crop changes images .*, got samples of shape \(4,\)"),
        (wide, "later", r"augment: later changes sounds \(channels, time\), got .* \(1, 2, 2\)"),
        (wide, "photos", "augment: photos expects images in 0..1, got .*standardise inside"),
    ):
        with pytest.raises(DataError, match=message):
            fit(nn.Sequential(nn.Flatten(), mlp([4, 2])), samples, recipe=Recipe(augment=names))
