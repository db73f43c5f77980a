"""Correlations with metrics against scipy, against trying every order, and votes a metric predicts by construction."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.human_vs_metric import MetricTableError, correlate, read_metrics, system_means, vote_agreement
from analysis.simulate import Design, Truth, simulate_votes

stats: Any = scipy.stats  # its stubs know less than its results hold

PEOPLE = dict(zip("abcdef", [0.1, 0.4, 0.2, 0.5, 0.9, 0.7], strict=True))
METRIC = dict(zip("abcdef", [1.0, 2.0, 2.0, 1.5, 4.0, 3.0], strict=True))


def test_correlations_agree_with_scipy_and_p_values_with_trying_every_order() -> None:
    found = correlate(PEOPLE, METRIC, "psnr")
    human, metric = list(PEOPLE.values()), list(METRIC.values())
    assert found.spearman == pytest.approx(stats.spearmanr(human, metric).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(human, metric).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(human, metric).statistic)
    interval = stats.pearsonr(human, metric).confidence_interval()
    assert found.pearson_interval == pytest.approx((interval.low, interval.high))
    rhos = [stats.spearmanr(human, order).statistic for order in permutations(metric)]
    assert found.spearman_p == pytest.approx(np.mean(np.abs(rhos) >= abs(found.spearman or 0) - 1e-12))
    taus = [stats.kendalltau(human, order).statistic for order in permutations(metric)]
    assert found.kendall_p == pytest.approx(np.mean(np.abs(taus) >= abs(found.kendall or 0) - 1e-12))
    assert found.exact


def test_nine_methods_in_the_same_order_have_the_smallest_p_value_there_is() -> None:
    people = {str(i): float(i) for i in range(9)}
    found = correlate(people, {name: value**3 for name, value in people.items()}, "psnr")
    assert found.spearman == pytest.approx(1)
    assert found.spearman_p == pytest.approx(2 / 362880)
    assert (found.pairs_right, found.pairs) == (36, 36)


def test_metrics_where_less_is_better_are_turned() -> None:
    found = correlate(PEOPLE, {name: -value for name, value in METRIC.items()}, "LPIPS")
    assert found.turned
    assert found.spearman == pytest.approx(correlate(PEOPLE, METRIC, "psnr").spearman)
    assert not correlate(PEOPLE, METRIC, "LPIPS", lower_is_better=False).turned


def test_pairs_ordered_as_people_do_are_counted_with_equal_values_as_half() -> None:
    found = correlate({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.0, "b": 1.0, "c": 0.5}, "psnr")
    assert (found.pairs_right, found.pairs) == (0.5, 3)


def test_more_than_nine_methods_draw_orders_by_seed() -> None:
    rng = np.random.default_rng(0)
    people = {str(i): float(v) for i, v in enumerate(rng.normal(size=12))}
    metric = {str(i): float(v) for i, v in enumerate(rng.normal(size=12))}
    one, again = correlate(people, metric, "psnr", seed=1), correlate(people, metric, "psnr", seed=1)
    assert one == again
    assert not one.exact
    expected = stats.spearmanr(list(people.values()), list(metric.values())).pvalue
    assert one.spearman_p == pytest.approx(expected, abs=0.03)


def test_what_does_not_vary_has_no_correlation() -> None:
    found = correlate(PEOPLE, dict.fromkeys(PEOPLE, 1.0), "psnr")
    assert (found.spearman, found.kendall, found.pearson, found.pairs_right) == (None, None, None, found.pairs / 2)


def test_too_few_common_methods_are_refused() -> None:
    with pytest.raises(MetricTableError, match="Only 2 methods"):
        correlate({"a": 1.0, "b": 2.0, "x": 0.0}, METRIC, "psnr")


def table_of_scores() -> pd.DataFrame:
    """On every image a is better than b by PSNR and LPIPS; c has no scores."""
    scores = (("a", "psnr", 30.0), ("a", "lpips", 0.1), ("b", "psnr", 20.0), ("b", "lpips", 0.3))
    rows = [(method, f"image{i + 1}", metric, value) for i in range(10) for method, metric, value in scores]
    return pd.DataFrame(rows, columns=["method", "image", "metric", "value"])


def test_a_metric_predicts_the_votes_of_those_who_follow_it() -> None:
    votes = simulate_votes(Design(20, 10, 10, ("q",)), Truth({"a": 0.7, "b": 0.0, "c": 0.0}), seed=3)
    both = np.sort(votes.shown, axis=1).tolist()
    about = np.array([pair == [0, 1] for pair in both])
    for metric in ("psnr", "lpips"):
        found = vote_agreement(votes, "q", table_of_scores(), metric)
        assert found.n == about.sum()
        assert found.right == (votes.chosen[about] == 0).sum()
        assert found.interval is not None
        assert found.interval.low is not None


def test_tables_are_read_from_both_formats_and_faults_named(tmp_path: Path) -> None:
    table = table_of_scores()
    table.to_csv(tmp_path / "m.csv", index=False)
    table.to_parquet(tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        assert system_means(read_metrics(tmp_path / name), "psnr") == {"a": 30.0, "b": 20.0}
    with pytest.raises(MetricTableError, match="No row is about 'fid'"):
        system_means(table, "fid")
    table.drop(columns="metric").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(MetricTableError, match="lacks the column metric"):
        read_metrics(tmp_path / "less.csv")
    table.assign(value=["nan", *table["value"][1:]]).to_csv(tmp_path / "nan.csv", index=False)
    with pytest.raises(MetricTableError, match="Row 1"):
        read_metrics(tmp_path / "nan.csv")
    with pytest.raises(MetricTableError, match="cannot be read"):
        read_metrics(tmp_path / "absent.csv")


def test_every_missing_column_is_named_and_a_score_given_twice_refused(tmp_path: Path) -> None:
    table = table_of_scores()
    for name in table.columns:
        table.drop(columns=name).to_csv(tmp_path / "less.csv", index=False)
        with pytest.raises(MetricTableError, match=f"lacks the column {name}\\."):
            read_metrics(tmp_path / "less.csv")
    table[["method", "value"]].to_parquet(tmp_path / "less.parquet")
    with pytest.raises(MetricTableError, match="lacks the column image, metric"):
        read_metrics(tmp_path / "less.parquet")
    pd.concat([table, table.iloc[[4]]]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(MetricTableError, match="Row 41 gives 'psnr' of 'a' on 'image2' a second time"):
        read_metrics(tmp_path / "twice.csv")


def test_names_that_look_like_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("method,image,metric,value\n007,0001,psnr,3\n007,1,psnr,5\n007,,fid,9\n")
    scores = read_metrics(tmp_path / "m.csv")
    assert scores["image"].tolist() == ["0001", "1", ""]
    assert system_means(scores, "psnr") == {"007": 4.0}


@pytest.mark.parametrize(
    ("name", "turned"),
    [
        ("fid-inception-torchvision", True),
        ("L1-hole", True),
        ("colour-step", True),
        ("psnr-hole", False),
        ("u-ids", False),
    ],
)
def test_a_metric_named_with_its_network_or_region_keeps_its_direction(name: str, turned: bool) -> None:  # noqa: FBT001
    people = {"a": 3.0, "b": 2.0, "c": 1.0}
    found = correlate(people, {"a": 30.0, "b": 20.0, "c": 10.0}, name)
    assert found.turned is turned
    assert found.spearman == pytest.approx(-1.0 if turned else 1.0)
