"""Intervals that cover, marks that are right, and numbers that are refused when there are too few pictures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from asuka_infer.metrics.distributions import ids_scores_of_features, kernel_distance_seen
from asuka_infer.metrics.frechet import frechet_distance_of_features
from asuka_infer.metrics.scoreboard import Collected, Scoreboard, build_scoreboard, resampled_means

Vector = NDArray[np.float32]


def features(count: int, seed: int, shift: float = 0.0) -> Vector:
    return np.random.default_rng(seed).normal(shift, 1, (count, 5)).astype(np.float32)


def board(count: int, domains: list[str] | None = None, scale: float = 1.0) -> Scoreboard:
    rng = np.random.default_rng(1)
    collected = {
        name: Collected(
            {"psnr": rng.normal(20 + shift, scale, count), "l1": np.full(count, 3.0)},
            {"inception-tf": features(count, seed, shift)},
        )
        for seed, (name, shift) in enumerate({"near": 0.1, "far": 2.0}.items())
    }
    return build_scoreboard(collected, {"inception-tf": features(count, 9)}, domains or [""] * count, notes=["said"])


def test_set_metrics_are_those_of_the_features_under_names_that_say_the_network() -> None:
    told = board(150)
    near = told.rows[0].cells
    given = features(150, 0, 0.1), features(150, 9)
    ids = ids_scores_of_features(given[0].astype(np.float64), given[1].astype(np.float64))

    assert set(told.metrics) == {"psnr", "l1", "fid", "kid", "u-ids-inception-tf", "p-ids-inception-tf"}
    assert told.metrics["fid"].title == "FID (Inception, TF)"
    assert near["fid"].value == pytest.approx(frechet_distance_of_features(*given).value)
    assert near["kid"].value == pytest.approx(1000 * kernel_distance_seen(*given).value)
    assert (near["u-ids-inception-tf"].value, near["p-ids-inception-tf"].value) == (ids.unpaired, ids.paired)
    assert near["u-ids-inception-tf"].note == "N=150, PCA 5"
    assert (near["fid"].place, told.rows[1].cells["fid"].place) == (1, 2)


def test_numbers_that_print_alike_share_a_place_and_a_column_of_one_number_has_none() -> None:
    told = board(150)

    assert [row.cells["l1"].place for row in told.rows] == [0, 0]
    assert [row.cells["psnr"].place for row in told.rows] == [2, 1]


def test_domains_have_their_own_rows_and_too_few_pictures_no_set_metric() -> None:
    told = board(150, ["a"] * 100 + ["b"] * 50)

    assert [(row.group, row.pictures) for row in told.rows] == [
        ("all", 150), ("all", 150), ("a", 100), ("a", 100), ("b", 50), ("b", 50),
    ]  # fmt: skip
    assert told.rows[2].cells["fid"].value is not None
    assert told.rows[4].cells["fid"].value is None
    assert told.rows[4].cells["p-ids-inception-tf"].note == "needs 100 images, there are 50"
    assert board(150, ["a"] * 150).rows[-1].group == "all"


def test_fewer_pictures_than_features_is_said_beside_the_fid() -> None:
    wide = np.random.default_rng(0).normal(0, 1, (2, 100, 120)).astype(np.float32)
    told = build_scoreboard({"m": Collected({}, {"squeezenet": wide[0]})}, {"squeezenet": wide[1]}, [""] * 100)

    assert "biased upwards" in told.rows[0].cells["fid-squeezenet"].note


def test_intervals_are_as_wide_as_the_normal_ones_and_alike_for_alike_seeds() -> None:
    cell = board(400).rows[0].cells["psnr"]

    assert cell.value is not None
    assert cell.low is not None
    assert cell.high is not None
    assert (cell.high - cell.low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    assert cell == board(400).rows[0].cells["psnr"]


def test_resampled_means_are_those_of_drawing_rows() -> None:
    values = np.random.default_rng(2).normal(0, 1, (30, 2))
    told = resampled_means(values, 2000)

    assert told.shape == (2000, 2)
    assert told.mean(0) == pytest.approx(values.mean(0), abs=0.02)
    assert told.std(0) == pytest.approx(values.std(0) / np.sqrt(30), rel=0.08)
    # Both columns see the same rows.
    assert np.allclose(resampled_means(values[:, [0, 0]], 5)[:, 0], resampled_means(values[:, [0, 0]], 5)[:, 1])
