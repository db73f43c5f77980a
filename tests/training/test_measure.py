"""The bootstrap of the table against the plain estimators and counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asuka_infer.asuka.embedded import asuka_mini
from asuka_infer.asuka.mini import MiniModel, load_mini, save_mini
from asuka_infer.images import read_image
from asuka_infer.metrics.distributions import kernel_distance_of_features
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import SettingsError
from tests.asuka_infer.asuka.tiny import TINY
from training.measure import Case, bootstrap_weights, fill_all, weighted_kernel_distance


def test_without_resampling_the_weighted_kernel_distance_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    results, truths = rng.normal(0.3, 1, (20, 6)), rng.normal(0, 1, (20, 6))

    plain = kernel_distance_of_features(results, truths)
    assert weighted_kernel_distance(results, truths, np.ones((1, 20)))[0] == pytest.approx(plain)


def test_a_case_left_out_by_its_weight_is_as_if_it_had_never_been() -> None:
    rng = np.random.default_rng(1)
    results, truths = rng.normal(0.3, 1, (20, 6)), rng.normal(0, 1, (20, 6))
    weights = np.ones((1, 20))
    weights[0, 15:] = 0

    # The unit is that of all truths, alike in every resample, so it is made the same for both.
    truths[:15] /= np.sqrt((truths[:15] ** 2).mean())
    truths[15:] /= np.sqrt((truths[15:] ** 2).mean())
    plain = kernel_distance_of_features(results[:15], truths[:15])
    assert weighted_kernel_distance(results, truths, weights)[0] == pytest.approx(plain)


def test_whole_photographs_are_resampled_together_and_as_many_as_there_are() -> None:
    owners = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    weights = bootstrap_weights(owners, resamples=500)

    assert (weights.sum(1) == 9).all()
    assert all((weights[:, start : start + 3] == weights[:, [start]]).all() for start in (0, 3, 6))
    # Each of three photographs is missing from a resample with probability (2/3)^3.
    assert (weights[:, 0] == 0).mean() == pytest.approx(8 / 27, abs=0.06)


def test_a_method_is_measured_with_the_settings_that_its_name_carries(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_mini(MiniModel(TINY), tmp_path / "weights")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), np.bool_)
    hole[20:36, 24:40] = True
    case = Case("one", 0, picture, hole)
    (plain,) = fill_all("asuka-mini:texture=0", [case], tmp_path, weights=tmp_path / "weights")
    (usual,) = fill_all("asuka-mini", [case], tmp_path, weights=tmp_path / "weights")
    method = asuka_mini(load_mini(tmp_path / "weights")).with_settings(texture=0.0)

    assert (read_image(plain).pixels == method(InpaintRequest(picture, hole, 0)).image).all()
    assert (read_image(plain).pixels != read_image(usual).pixels).any()
    with pytest.raises(SettingsError, match="flavour"):
        fill_all("asuka-mini:flavour=3", [case], tmp_path, weights=tmp_path / "weights")
