"""The mask's refinement, where it needs no network."""

from __future__ import annotations

import numpy as np
import pytest

from worker.avatar.observe.light import outline_contrast
from worker.avatar.observe.mask import box_of, edge_band, guided_filter, pooled


def disc(radius: float, size: int = 240) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return np.hypot(x - size / 2, y - size / 2) <= radius


def test_the_guided_filter_pulls_a_coarse_edge_onto_the_photos_edge() -> None:
    truth = disc(80)
    rng = np.random.default_rng(5)
    guide = np.where(truth[..., None], (190, 120, 90), (90, 120, 160)) + rng.normal(
        0, 4, (240, 240, 3)
    )
    blocks = truth[::12, ::12].astype(np.float32)
    coarse = np.kron(blocks, np.ones((12, 12), dtype=np.float32))
    refined = guided_filter(guide.clip(0, 255).astype(np.uint8), coarse, 14)
    wrong_before = np.count_nonzero((coarse > 0.5) != truth)
    wrong_after = np.count_nonzero((refined > 0.5) != truth)
    assert wrong_after < 0.15 * wrong_before


def test_the_guided_filter_does_not_know_left_from_right() -> None:
    rng = np.random.default_rng(4)
    guide = rng.integers(0, 255, (60, 93, 3)).astype(np.uint8)
    values = rng.random((60, 93)).astype(np.float32)
    turned = guided_filter(guide[::-1, ::-1].copy(), values[::-1, ::-1].copy(), 6)
    np.testing.assert_allclose(turned[::-1, ::-1], guided_filter(guide, values, 6), atol=1e-4)


def test_on_an_even_photo_the_guided_filter_only_smooths() -> None:
    guide = np.full((120, 120, 3), 128, dtype=np.uint8)
    values = np.zeros((120, 120), dtype=np.float32)
    values[:, 60:] = 1.0
    smooth = guided_filter(guide, values, 6)
    assert smooth.min() >= -1e-3
    assert smooth.max() <= 1 + 1e-3
    assert np.abs(smooth[60] - np.sort(smooth[60])).max() < 1e-4


def test_the_band_is_one_at_the_edge_and_zero_at_twice_its_half_width() -> None:
    body = np.zeros((100, 200), dtype=bool)
    body[:, 100:] = True
    band = edge_band(body, 10.0)[50]
    assert band[99] == 1.0
    assert band[100] == 1.0
    assert band[92] == 1.0
    assert band[84] == pytest.approx(0.5, abs=0.1)
    assert band[75] == 0.0
    assert band[125] == 0.0


def opinion(probability: float) -> np.ndarray:
    return np.full((2, 3), probability, dtype=np.float32)


def test_who_is_sure_outweighs_who_is_not() -> None:
    # A gap beside the trunk, which one network sees and of which the other can say nothing.
    assert pooled([opinion(0.01), opinion(0.6)]).max() < 0.15
    assert pooled([opinion(0.99), opinion(0.4)]).min() > 0.85


def test_pooling_agrees_with_those_who_agree_and_takes_no_side_between_opposites() -> None:
    np.testing.assert_allclose(pooled([opinion(0.2), opinion(0.2)]), 0.2, rtol=1e-5)
    np.testing.assert_allclose(pooled([opinion(0.1), opinion(0.9)]), 0.5, rtol=1e-5)
    # Certainty is a number that was rounded: it can be outvoted.
    np.testing.assert_allclose(pooled([opinion(0.0), opinion(1.0)]), 0.5, rtol=1e-5)


def test_the_box_around_a_region() -> None:
    region = np.zeros((20, 30), dtype=bool)
    assert box_of(region) is None
    region[3:7, 10:21] = True
    box = box_of(region)
    assert box is not None
    assert box.tolist() == [10, 3, 21, 7]


@pytest.mark.parametrize(("inside", "outside"), [(120, 100), (60, 200), (90, 90)])
def test_contrast_across_the_outline_is_told_in_grey_levels(inside: int, outside: int) -> None:
    body = disc(80)
    noise = np.random.default_rng(1).normal(0, 2, (240, 240, 3))
    pixels = (np.where(body[..., None], inside, outside) + noise).clip(0, 255).astype(np.uint8)
    contrast = outline_contrast(pixels, body.astype(np.float32))
    assert contrast == pytest.approx(abs(inside - outside), abs=1.5)


def test_without_a_person_there_is_no_contrast() -> None:
    assert outline_contrast(np.zeros((40, 40, 3), dtype=np.uint8), np.zeros((40, 40))) == 0.0
