"""Reading votes from files: every layout, and every way in which a table can be wrong."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.rates import preference_rates, selection_ratios
from analysis.vote_files import LoadError, read_votes

HEADINGS = (
    "participant_no,trial_id,image_key,stratum,criterion,methods_shown,"
    "outcome,position_chosen,method_chosen,rt_ms,used\n"
)
EXPORT = (
    HEADINGS
    + """\
1,t1,kitchen,indoor,stability,asuka|lama,choice,0,asuka,2100,true
1,t1,kitchen,indoor,consistency,asuka|lama,tie,,,3000,true
2,t2,lake,outdoor,stability,lama|asuka,choice,1,asuka,900,true
2,t2,lake,outdoor,consistency,lama|asuka,cant_tell,,,950,true
10,t3,lake,outdoor,stability,asuka|lama,choice,1,lama,,false
"""
)


def write(folder: Path, text: str, name: str = "votes.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_an_export_is_read_with_its_names_times_domains_and_exclusions(tmp_path: Path) -> None:
    votes = read_votes(write(tmp_path, EXPORT))
    assert votes.participants == ("1", "2", "10")
    assert (votes.methods, votes.criteria) == (("asuka", "lama"), ("consistency", "stability"))
    assert [votes.domains[code] for code in votes.domain] == ["indoor", "outdoor"]
    assert votes.response_ms.tolist() == [2100, 3000, 900, 950, -1]
    assert votes.used.tolist() == [True, True, True, True, False]
    (rate,) = [rate for rate in preference_rates(votes, target="asuka") if rate.criterion == "stability"]
    assert (rate.wins, rate.n) == (2, 2)


def test_the_folder_of_an_export_and_its_parquet_give_the_same_votes(tmp_path: Path) -> None:
    path = write(tmp_path, EXPORT)
    table = pd.read_csv(path)
    table["methods_shown"] = [cell.split("|") for cell in table["methods_shown"]]
    table.to_parquet(tmp_path / "votes.parquet")
    from_csv, from_folder = read_votes(path), read_votes(tmp_path)
    assert selection_ratios(from_csv) == selection_ratios(from_folder)
    assert from_csv.response_ms.tolist() == from_folder.response_ms.tolist()


def test_gold_and_practice_trials_are_left_out_and_repeats_marked(tmp_path: Path) -> None:
    text = (
        "participant,trial_id,image,criterion,methods_shown,outcome,method_chosen,kind,is_repeat_of\n"
        "1,a,i,q,x|y,choice,x,real,\n1,b,i,q,y|x,choice,x,repeat,a\n1,c,i,q,x|y,choice,x,gold,\n"
    )
    votes = read_votes(write(tmp_path, text))
    assert votes.counted.tolist() == [True, False]
    assert votes.repeat_of.tolist()[1] == votes.trial.tolist()[0]


def test_best_of_n_and_partial_sets_are_read(tmp_path: Path) -> None:
    text = (
        "participant,image,criterion,methods_shown,outcome,position_chosen\n"
        '1,i,q,a|b|c,choice,2\n2,i,q,b|a,choice,0\n3,i,q,["c"; "b"],choice,0\n'
    ).replace('["c"; "b"]', '"[""c"", ""b""]"')
    votes = read_votes(write(tmp_path, text))
    assert [votes.methods[code] for code in votes.chosen] == ["c", "b", "c"]
    assert votes.shown.shape == (3, 3)
    assert [rate.n for rate in selection_ratios(votes)] == [2, 3, 2]


def test_the_pwcmp_layout_is_read(tmp_path: Path) -> None:
    text = "observer,session,scene,condition_A,condition_B,is_A_selected\no1,1,s1,x,y,1\no2,1,s1,y,x,0\n"
    (rate,) = preference_rates(read_votes(write(tmp_path, text)), target="x")
    assert (rate.wins, rate.n, rate.criterion) == (2, 2, "preference")


def test_the_arena_layout_is_read_with_both_kinds_of_ties(tmp_path: Path) -> None:
    text = (
        "question_id,model_a,model_b,winner,judge\n"
        "1,x,y,model_a,j1\n2,x,y,tie,j1\n3,y,x,tie (bothbad),j2\n4,y,x,model_a,j2\n"
    )
    (rate,) = preference_rates(read_votes(write(tmp_path, text)), target="x")
    assert (rate.wins, rate.ties, rate.losses) == (1, 2, 1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("outcome", "result"), "lacks the column outcome"),
        (("participant_no", "who"), "participant_no or participant"),
        (("position_chosen", "a"), None),
        (("choice,0,asuka,2100", "choise,0,asuka,2100"), "Row 1 has the outcome 'choise'"),
        (("choice,0,asuka,2100", ",0,asuka,2100"), "Row 1 has no outcome"),
        (("kitchen", "nan"), "Row 1 has no image_key"),
        (("choice,0,asuka,2100", "choice,7,asuka,2100"), "Row 1 is a choice"),
        (("choice,0,asuka,2100", "choice,1,asuka,2100"), "Row 1 is a choice"),
        (("choice,0,asuka,2100", "choice,,telea,2100"), "Row 1 is a choice"),
        (("2100", "quick"), "Row 1 has the response time 'quick'"),
        (("2100", "inf"), "Row 1 has the response time 'inf'"),
        (("2100,true", "2100,maybe"), "used = 'maybe'"),
        (("asuka|lama,choice,0", "asuka|asuka,choice,0"), "Row 1 shows 'asuka|asuka'"),
        (("t2,lake,outdoor,consistency", "t2,lake,outdoor,stability"), "stands 2 times"),
        (("10,t3,lake,outdoor", "10,t3,lake,indoor"), "Row 5 puts its image"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_by_row_and_column(
    tmp_path: Path, change: tuple[str, str], complaint: str | None
) -> None:
    path = write(tmp_path, EXPORT.replace(*change, 1))
    if complaint is None:
        assert len(read_votes(path)) == 5  # the method's name alone says the choice
        return
    with pytest.raises(LoadError, match=complaint.replace("|", r"\|")):
        read_votes(path)


def test_the_same_question_twice_without_trial_names_is_refused(tmp_path: Path) -> None:
    row = "1,i,q,a|b,choice,a\n"
    text = "participant,image,criterion,methods_shown,outcome,method_chosen\n" + row + row
    with pytest.raises(LoadError, match="stands 2 times"):
        read_votes(write(tmp_path, text))


def test_a_missing_file_an_empty_file_and_a_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no file"):
        read_votes(tmp_path / "absent.csv")
    with pytest.raises(LoadError, match="neither"):
        read_votes(tmp_path)
    with pytest.raises(LoadError, match="cannot be read"):
        read_votes(write(tmp_path, ""))
    (tmp_path / "picture.parquet").write_bytes(b"\x89PNG")
    with pytest.raises(LoadError, match="cannot be read"):
        read_votes(tmp_path / "picture.parquet")


def test_a_table_with_headings_only_is_a_study_without_votes(tmp_path: Path) -> None:
    votes = read_votes(write(tmp_path, HEADINGS))
    assert len(votes) == 0
    assert selection_ratios(votes) == ()
