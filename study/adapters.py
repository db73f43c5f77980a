"""The votes in the layouts other tools read: pwcmp's observations, arena battles and crowd-kit's comparisons.

All three know pairwise choices only. Of a best-of-n vote they get the winner against each of the others, which keeps
the order of preference but not independence: those pairs come from one look.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from study.export import Export, Row

COMPARED = ("real",)
"""Repeats would let one person count twice on a picture."""


def adapter_files(export: Export) -> dict[str, bytes]:
    """`pwcmp.csv`, `arena_battles.csv` and `crowdkit.csv` of an export: used answers of real trials alone.

    * pwcmp (github.com/mantiuk/pwcmp): observer, session, scene, condition_A, condition_B, is_A_selected. It knows no
      ties, so those are left out; the criterion is a column of its own, take one at a time.
    * arena battles (FastChat, arena-rank): model_a, model_b, winner in model_a, model_b, tie; `cant_tell` is left out.
    * crowd-kit: worker, left, right, label, where label names the winner; ties are left out.
    """
    votes = [vote for vote in export.tables["votes"] if vote["kind"] in COMPARED and vote["used"]]
    return {
        "pwcmp.csv": _csv(("observer", "session", "scene", "criterion", "condition_A", "condition_B", "is_A_selected"),
                          _pwcmp(votes)),
        "arena_battles.csv": _csv(("question_id", "criterion", "model_a", "model_b", "winner", "judge", "tstamp"),
                                  _arena(votes)),
        "crowdkit.csv": _csv(("worker", "criterion", "image", "left", "right", "label"), _crowdkit(votes)),
    }  # fmt: skip


def _pwcmp(votes: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    for vote, first, second, winner in _pairs(votes):
        if winner is not None:
            yield {
                "observer": vote["participant_no"],
                "session": vote["session_id"],
                "scene": vote["image_key"],
                "criterion": vote["criterion"],
                "condition_A": first,
                "condition_B": second,
                "is_A_selected": int(winner == first),
            }


def _arena(votes: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    for vote, first, second, winner in _pairs(votes):
        if vote["outcome"] != "cant_tell":
            yield {
                "question_id": vote["image_key"],
                "criterion": vote["criterion"],
                "model_a": first,
                "model_b": second,
                "winner": {first: "model_a", second: "model_b"}.get(winner or "", "tie"),
                "judge": vote["participant_no"],
                "tstamp": vote["answered_at"],
            }


def _crowdkit(votes: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    for vote, first, second, winner in _pairs(votes):
        if winner is not None:
            yield {
                "worker": vote["participant_no"],
                "criterion": vote["criterion"],
                "image": vote["image_key"],
                "left": first,
                "right": second,
                "label": winner,
            }


def _pairs(votes: Sequence[Row]) -> Iterator[tuple[Row, str, str, str | None]]:
    """(vote, the one more to the left, the other, the winner or None), one per pair a vote says something about."""
    for vote in votes:
        shown: list[str] = vote["methods_shown"]
        winner: str | None = vote["method_chosen"]
        for low, first in enumerate(shown):
            for second in shown[low + 1 :]:
                if winner in (first, second) or winner is None:
                    yield vote, first, second, winner


def _csv(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
