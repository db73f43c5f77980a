"""A colour-vision plate's figure is seen by its hue alone, differs between people, and is judged on the server."""

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab
from sqlalchemy import select

from db import models
from db.engine import Database
from study.blinding import telling_chunks
from study.plates import FIGURES, SIZE, dot_colour, dots, draw_plate, figure_of, figure_shape
from tests.study.stage import Folders, Participant, Stage, definition, open_stage

KEY = bytes(range(32))

# What is left of linear sRGB to people without one kind of cone (Machado, Oliveira and Fernandes, 2009, severity 1).
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


def linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def as_seen(rgb: np.ndarray, eye: list[list[float]]) -> np.ndarray:
    left = np.clip(linear(rgb) @ np.array(eye).T, 0, 1)
    return np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055)


def colours(*, figure: bool) -> np.ndarray:
    """(n, 3) sRGB in 0 ... 1 of dots over the whole range of lightness."""
    return np.array([dot_colour(float(level), figure=figure) for level in np.linspace(48, 66, 10)]) / 255


def test_figure_and_ground_have_one_luminance_and_one_chroma_and_two_hues() -> None:
    figure, ground = colours(figure=True), colours(figure=False)
    weights = np.array([0.2126, 0.7152, 0.0722])  # of relative luminance, IEC 61966-2-1
    assert np.allclose(linear(figure) @ weights, linear(ground) @ weights, rtol=0.03)
    lab = rgb2lab(figure), rgb2lab(ground)
    chroma = [np.hypot(each[:, 1], each[:, 2]) for each in lab]
    assert np.allclose(chroma[0], chroma[1], atol=2.5)
    assert np.linalg.norm(lab[0] - lab[1], axis=1).min() > 38


@pytest.mark.parametrize("eye", [PROTAN, DEUTAN], ids=["protan", "deutan"])
def test_who_lacks_a_cone_sees_hardly_any_difference(eye: list[list[float]]) -> None:
    seen = [rgb2lab(as_seen(colours(figure=figure), eye)) for figure in (True, False)]
    assert np.linalg.norm(seen[0] - seen[1], axis=1).max() < 9
    plain = [rgb2lab(colours(figure=figure)) for figure in (True, False)]
    assert np.linalg.norm(plain[0] - plain[1], axis=1).min() > 4 * 9


@pytest.mark.parametrize("figure", FIGURES)
def test_a_plate_shows_its_figure_to_whoever_sees_hues(figure: str) -> None:
    plate = rgb2lab(draw_plate(figure, seed=3))
    pink = plate[..., 1] > 10
    shape = figure_shape(figure)
    assert pink[shape].mean() > 0.35
    assert pink[~shape].mean() < 0.06  # dots whose middle lies within reach over the edge
    assert 0.08 < shape.mean() < 0.4


def test_dots_lie_within_the_disc_and_touch_nowhere() -> None:
    placed = dots(np.random.default_rng(1))
    assert len(placed) > 250
    for at, (column, row, radius) in enumerate(placed):
        assert math.hypot(column - SIZE / 2, row - SIZE / 2) + radius <= SIZE / 2
        for other_column, other_row, other_radius in placed[:at]:
            assert math.hypot(column - other_column, row - other_row) > radius + other_radius


def test_lightness_alone_does_not_give_the_figure_away() -> None:
    lightness = rgb2lab(draw_plate("8", seed=5))[..., 0]
    dot = np.abs(rgb2lab(draw_plate("8", seed=5))[..., 1]) > 5
    shape = figure_shape("8")
    assert abs(lightness[dot & shape].mean() - lightness[dot & ~shape].mean()) < 2


def test_every_person_has_figures_of_their_own_and_keeps_them() -> None:
    read = ["".join(figure_of(bytes([person]), number) for number in range(6)) for person in range(50)]
    assert len(set(read)) > 45
    assert set("".join(read)) == set(FIGURES)
    assert figure_of(KEY, 2) == figure_of(KEY, 2)


# ------------------------------------------------------------------------------------------------- in a session


@pytest.fixture
def screened(database: Database, folders: Folders) -> Iterator[Stage]:
    study = definition(
        screen={"colour_vision": 3, "colour_vision_misses": 1}, recruit={"codes": {"screened_out": "SORRY"}}
    )
    with open_stage(database, folders, study) as stage:
        yield stage


def figures(stage: Stage) -> list[str]:
    """The right answers, as the database knows them."""
    with stage.database.read() as db:
        seed = db.execute(select(models.StudySession.plan_seed)).scalar_one()
    return [figure_of(bytes.fromhex(seed), number) for number in range(3)]


def plate(participant: Participant, number: int) -> Any:
    return participant.client.get(f"/study/api/v1/sessions/me/plates/{number}", headers=participant.headers)


def test_who_reads_the_plates_but_one_takes_part(screened: Stage) -> None:
    participant = screened.participant()
    assert participant.join()["state"] == "created"
    refused = participant.client.post(
        "/study/api/v1/sessions/me/consent", json={"accepted": True, "boxes": ["agree"]}, headers=participant.headers
    )
    assert refused.json()["code"] == "not_open"
    read = [*figures(screened)[:2], ""]
    assert participant.post("/sessions/me/plates", {"figures": read})["state"] == "screened"
    assert participant.agree()["state"] == "running"
    assert participant.answer_all()["state"] == "completed"


def test_who_misreads_two_is_thanked_and_asked_no_second_time(screened: Stage) -> None:
    participant = screened.participant()
    participant.join()
    right = figures(screened)
    wrong = [right[0], "", ""]
    assert participant.post("/sessions/me/plates", {"figures": wrong})["state"] == "screened_out"
    assert participant.post("/sessions/me/plates", {"figures": right})["state"] == "screened_out"
    assert participant.get("/sessions/me/completion")["code"] == "SORRY"


def test_a_plate_is_served_to_its_session_until_it_is_read_and_tells_nothing_but_pixels(screened: Stage) -> None:
    participant, other = screened.participant(), screened.participant()
    participant.join()
    served = [plate(participant, number) for number in range(3)]
    for reply in served:
        assert reply.headers["cache-control"] == "private, no-store"
        assert telling_chunks(reply.content) == []
        assert np.asarray(Image.open(io.BytesIO(reply.content))).shape == (SIZE, SIZE, 3)
    assert plate(participant, 1).content == served[1].content
    assert {plate(participant, 3).status_code, plate(participant, 99).status_code} == {404}
    assert plate(other, 0).status_code == 401
    participant.post("/sessions/me/plates", {"figures": figures(screened)})
    assert plate(participant, 0).status_code == 404


@pytest.mark.parametrize("given", [[], ["1", "2"], ["1", "2", "3", "4"], ["12", "3", "4"], "123", [1, 2, 3]])
def test_anything_but_one_answer_per_plate_is_refused_and_changes_nothing(screened: Stage, given: Any) -> None:
    participant = screened.participant()
    participant.join()
    reply = participant.client.post(
        "/study/api/v1/sessions/me/plates", json={"figures": given}, headers=participant.headers
    )
    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")
    assert participant.get("/sessions/me")["state"] == "created"


def test_a_study_without_plates_shows_none(stage: Stage) -> None:
    participant = stage.participant()
    participant.join()
    assert plate(participant, 0).status_code == 404
    assert participant.post("/sessions/me/plates", {"figures": []})["state"] == "created"
