"""A report is written whole, agrees with the estimates, validates against its schema, and survives poor studies."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from study_database import write_study

from analysis import pictures
from analysis.cli import main
from analysis.example import example_metrics, example_votes, paper_like_votes
from analysis.figures import design_scatter, rate_bars
from analysis.pictures import PicturesUnavailableError, draw
from analysis.rankings import rank
from analysis.rates import selection_ratios
from analysis.report import SCHEMA_FILE, latex, write_report
from analysis.simulate import Design, Truth, simulate_votes
from analysis.summary import Unknown, as_json, summarise
from analysis.votes import Votes

TRUTH = Truth({"a": 0.5, "b": 0.0, "c": -0.5}, tie_strength=0.3)
VOTES = simulate_votes(Design(12, 10, 6, repeats=1, domains=("indoor", "outdoor")), TRUTH, seed=3)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    metrics = example_metrics(VOTES)
    written = write_report(VOTES, folder, title="A <study>", target="a", metrics=metrics, static=False)
    assert all((folder / name).is_file() for name in written.files)
    return folder


def test_the_numbers_validate_against_their_schema_and_are_the_estimates(report: Path) -> None:
    numbers: Any = json.loads((report / "stats.json").read_text())
    jsonschema.validate(numbers, json.loads(SCHEMA_FILE.read_text()))
    assert numbers["selection"] == json.loads(json.dumps(as_json(selection_ratios(VOTES))))
    assert [one["metric"] for one in numbers["metrics"]][:2] == ["lpips, context_stability", "psnr, context_stability"]


def test_the_page_needs_no_other_file_and_no_network(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "A &lt;study&gt;" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']", page)
    assert page.count('class="plotly-graph-div"') == 4 + 7 * 2 + 3 + 2 * 2  # overall, per criterion, quality, metrics
    named = re.findall(r'<div id="([^"]+)" class="plotly-graph-div"', page)
    assert len(set(named)) == 4 + 7 * 2 + 3 + 2 * 2
    assert all(name.startswith("figure-") for name in named)  # a random id would make no two pages alike


def test_the_page_leaves_out_empty_columns_and_turns_the_checks_to_one_column_per_criterion(report: Path) -> None:
    tables = re.findall(r"<table.*?</table>", (report / "report.html").read_text(), re.DOTALL)
    heads = [re.findall(r"<th>(.*?)</th>", table) for table in tables]
    assert ["", "context_stability", "visual_consistency"] in heads
    for head, table in zip(heads, tables, strict=True):
        cells = np.array(re.findall(r"<td>(.*?)</td>", table, re.DOTALL)).reshape(-1, len(head))
        assert (cells != "").any(axis=0).all()
    assert any("Gwet's AC1" in table for table in tables)
    assert any("split-half reliability" in table for table in tables)
    assert "p = &lt;" not in "".join(tables)


def test_every_table_comes_in_three_forms_that_say_the_same(report: Path) -> None:
    for path in (report / "tables").glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        parquet = pd.read_parquet(path.with_suffix(".parquet"))
        assert list(table.columns) == list(parquet.columns)
        assert len(table) == len(parquet) == path.with_suffix(".tex").read_text().count(r" \\") - 1
    rates = pd.read_csv(report / "tables/preference_rates.csv", dtype=str)
    assert set(rates["method"]) == {"a"}


def test_the_methods_paragraph_states_design_numbers_exclusions_and_estimators(report: Path) -> None:
    text = (report / "methods.txt").read_text()
    for words in (
        "12 participants",
        "10 images",
        "3 methods (a, b, c)",
        "two-way",
        "Holm",
        "family of 4",
        "ties",
        "excluded",
    ):
        assert words in text


def test_a_report_about_these_images_clusters_by_people_only_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    # Everyone agrees on every image; images disagree. New people would answer alike, new images would not.
    answers = [
        (person, image, "xxyx"[image]) if (person, image) != (0, 0) else (0, 0, "y")
        for person in range(9)
        for image in range(4)
    ]
    lines = [f"{person},i{image},q,{'x|y' if image % 2 else 'y|x'},choice,{won}" for person, image, won in answers]
    path.write_text("\n".join(["participant,image,criterion,methods_shown,outcome,method_chosen", *lines, ""]))
    command = ["report", "--votes", str(path), "--target", "x", "--no-pictures", "--out"]
    assert main([*command, str(tmp_path / "these"), "--population", "people, these images"]) == 0
    assert main([*command, str(tmp_path / "new")]) == 0
    these, new = (json.loads((tmp_path / name / "stats.json").read_text()) for name in ("these", "new"))
    # By hand: 26 of 36; per-person sums of deviations from 13/18 are -8/9 once and 1/9 eight times, CR1 is 9/8.
    by_hand = (9 / 8 * ((8 / 9) ** 2 + 8 * (1 / 9) ** 2)) ** 0.5 / 36
    (rate,) = these["preferences"]
    assert (rate["percent"], rate["headline"]) == ("72.22", "participant")
    assert rate["intervals"]["participant"]["standard_error"] == pytest.approx(by_hand)
    assert new["preferences"][0]["headline"] == "two-way"
    assert new["preferences"][0]["intervals"]["two-way"]["standard_error"] > 5 * by_hand
    assert {pair["without_exclusions"]["headline"] for pair in these["exclusions"]} == {"participant"}
    assert (these["replicates"]["resampled"], new["replicates"]["resampled"]) != (new["replicates"]["resampled"],) * 2
    assert these["criteria"][0]["ranking"]["errors"] == "participant"
    words = (tmp_path / "these/methods.txt").read_text()
    assert "new people on these images" in words
    assert "participant-clustered sandwich errors" in words
    assert "two-way" not in words


def test_tables_for_latex_escape_what_latex_would_read() -> None:
    assert r"a\_b & 50\% \\" in latex(pd.DataFrame({"x_1": ["a_b"], "y": ["50%"]}))


def poor_studies() -> dict[str, Votes]:
    nobody = VOTES.only(np.zeros(len(VOTES), dtype=bool))
    return {
        "no votes": nobody,
        "one participant": simulate_votes(Design(1, 6, 6, ("q",)), TRUTH, 1),
        "one image": simulate_votes(Design(6, 1, 1, ("q",)), TRUTH, 1),
        "all ties": simulate_votes(Design(5, 5, 5, ("q",)), Truth({"a": 0.0, "b": 0.0}, tie_strength=1e12), 1),
        "a winless method": simulate_votes(Design(6, 6, 6, ("q",)), Truth({"a": 0.0, "b": 0.0, "c": -99.0}), 1),
        "best of three with ties": simulate_votes(
            Design(6, 6, 6, ("q",), best_of_n=True), Truth(dict.fromkeys("abc", 0.0)), 1
        ),
    }


@pytest.mark.parametrize("name", poor_studies())
def test_a_poor_study_gets_a_report_that_says_what_cannot_be_estimated(tmp_path: Path, name: str) -> None:
    votes = poor_studies()[name]
    write_report(votes, tmp_path, title=name, static=False)
    numbers: Any = json.loads((tmp_path / "stats.json").read_text())
    jsonschema.validate(numbers, json.loads(SCHEMA_FILE.read_text()))
    reasons = [part.mixed.reason for part in summarise(votes).criteria if isinstance(part.mixed, Unknown)]
    assert len(reasons) == len(votes.criteria)
    assert all(reasons)


def test_the_report_of_a_database_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = write_study(tmp_path, VOTES)
    assert (
        main(["report", "--database", url, "--study", "example", "--out", str(tmp_path / "out"), "--no-pictures"]) == 0
    )
    assert capsys.readouterr().out.strip() == str(tmp_path / "out/report.html")
    assert (tmp_path / "out/stats.json").is_file()


def test_rates_of_a_file_are_printed_for_people_and_for_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(
        "participant,image,criterion,methods_shown,outcome,method_chosen\n"
        "1,i,q,x|y,choice,x\n2,i,q,x|y,choice,x\n1,j,q,y|x,choice,y\n2,j,q,x|y,tie,\n"
    )
    assert main(["rates", str(path), "--json", "--target", "x"]) == 0
    rates: Any = json.loads(capsys.readouterr().out)
    (rate,) = [one for one in rates if one["against"] == "y"]
    assert (rate["percent"], rate["wins"], rate["ties"], rate["n"]) == ("62.50", 2, 1, 4)
    assert main(["rates", str(path), "--these-images"]) == 0
    assert "62.50 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["rates", "absent.csv"], "no file absent.csv"),
        (["report", "--out", "x"], "--database and --study"),
        (["report", "--database", "mysql://x", "--study", "s", "--out", "x"], "not supported"),
        (["power", "absent.yaml"], "cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_status_two(
    command: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_power_of_a_definition_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text(
        "methods: [{key: a, role: target}, {key: b}]\ncriteria: [{key: q}]\n"
        "plan: {real: 10}\ntarget: {participants: 20}\n"
    )
    command = ["power", str(tmp_path / "study.yaml"), "--images", "20", "--simulations", "10", "--share", "0.9"]
    assert main(command) == 0
    assert "true preference 0.90: power 1.00" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["simulations"] == 10


def test_power_of_a_best_of_n_definition_is_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(
        "protocol: best_of_n\nmethods: [{key: a, role: target}, {key: b}, {key: c}]\ncriteria: [{key: q}]\n"
        "plan: {real: 10}\ntarget: {participants: 30}\n"
    )
    command = ["power", str(tmp_path / "study.yaml"), "--images", "20", "--simulations", "5", "--share", "0.9"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 methods all at once, 2 tests (Holm)" in said
    assert "true preference 0.90: power 1.00" in said


def test_pairs_are_drawn_against_best_of_n() -> None:
    truth = Truth({"a": 0.5, "b": 0.0, "c": -0.5})
    pairs = rank(simulate_votes(Design(20, 10, 10, ("q",)), truth, 1), "q")
    among_all = rank(simulate_votes(Design(20, 10, 10, ("q",), best_of_n=True), truth, 1), "q", "luce")
    figure: Any = design_scatter(pairs, among_all)
    assert [trace.text[0] for trace in figure.data[:3]] == ["a", "b", "c"]


def _nothing(_name: str) -> None:
    return None


def test_without_a_drawing_program_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BROWSERS", ())
    monkeypatch.setattr(pictures.importlib.util, "find_spec", _nothing)
    with pytest.raises(PicturesUnavailableError, match="install kaleido, or Chromium"):
        draw({"rates": rate_bars(selection_ratios(VOTES), VOTES.methods)})


@pytest.mark.browser
def test_chromium_draws_svg_and_png_of_the_size_asked_for() -> None:
    drawn = draw({"a & b": rate_bars(selection_ratios(VOTES), VOTES.methods)})
    assert drawn["a & b", "png"].startswith(b"\x89PNG")
    assert int.from_bytes(drawn["a & b", "png"][16:20]) == 2 * pictures.WIDTH
    assert b"<svg" in drawn["a & b", "svg"][:200]


def test_the_examples_are_the_sizes_they_claim() -> None:
    assert example_votes().is_pairwise
    assert [rate.n for rate in selection_ratios(paper_like_votes())] == [4000] * 18
