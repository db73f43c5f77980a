"""Nothing but pixels reaches a participant: a whole session is crawled byte by byte."""

import io
import os
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import func, select

from asuka_infer.images import encode_png
from db import models
from study.blinding import (
    PADDING_CHUNK,
    BlindTrial,
    PngError,
    pad_png,
    png_chunks,
    served_length,
    telling_chunks,
)
from tests.study.stage import METHODS, Stage

UUID_LIKE = re.compile(rb"^[0-9a-f]{32}$")


class Recorder:
    """Every byte that a client received."""

    def __init__(self, client: TestClient) -> None:
        self.seen: list[tuple[str, bytes]] = []
        client.event_hooks["response"] = [self._record]

    def _record(self, response: object) -> None:
        response.read()  # type: ignore[attr-defined]
        headers = b"\n".join(name + b": " + value for name, value in response.headers.raw)  # type: ignore[attr-defined]
        self.seen.append((str(response.url), headers + b"\n\n" + response.content))  # type: ignore[attr-defined]


def test_a_whole_session_tells_no_method_file_path_or_hash(stage: Stage) -> None:
    recorder = Recorder(stage.client)
    participant = stage.participant()
    stage.client.get("/study/trial-run")
    stage.client.get("/study/api/v1/studies")
    participant.start()
    reply = participant.get("/trial")
    while reply["state"] == "running":
        trial = reply["trial"]
        participant.post(f"/trial/{trial['id']}/shown")
        for stimulus in (trial["input"], *trial["candidates"]):
            assert participant.picture(stimulus["token"]).status_code == 200
        participant.try_answer({**trial, "criteria": ["nonsense"]})
        reply = participant.answer(trial)
    participant.get("/sessions/me/completion")
    secrets = forbidden(stage)
    assert len(recorder.seen) > 30
    for address, heard in recorder.seen:
        for secret in secrets:
            assert secret not in heard, (address, secret)
        if b"image/png" in heard:
            assert telling_chunks(heard[heard.index(b"\x89PNG") :]) == []


def forbidden(stage: Stage) -> set[bytes]:
    """Method keys, aliases, image keys, folders, and the hashes of blobs and pixels."""
    with stage.database.read() as db:
        words = [
            *db.execute(select(models.Method.key)).scalars(),
            *db.execute(select(models.Image.key)).scalars(),
            *db.execute(select(models.Blob.sha256)).scalars(),
            *db.execute(select(models.Rendition.pixel_sha256)).scalars(),
            *db.execute(select(models.Image.source_sha256)).scalars(),
            *db.execute(select(models.StudyVersion.design_seed)).scalars(),
        ]
        aliases = db.execute(select(models.Method.alias)).scalars()
        words += [f'"{alias}"' for alias in aliases]
    words += [*METHODS, str(stage.folders.results), str(stage.folders.images), ".png"]
    return {word.encode() for word in words}


def test_all_pictures_of_a_trial_have_equal_headers_and_lengths(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    trials = 0
    while reply["state"] == "running":
        trial = reply["trial"]
        pictures = [participant.picture(stimulus["token"]) for stimulus in (trial["input"], *trial["candidates"])]
        assert len({tuple(picture.headers.raw) for picture in pictures}) == 1
        assert len({len(picture.content) for picture in pictures}) == 1
        names = {name.lower() for name in pictures[0].headers}
        assert names == {"content-type", "content-length", "cache-control", "x-content-type-options"}
        assert pictures[0].headers["cache-control"] == "private, no-store"
        trials += 1
        reply = participant.answer(trial)
    assert trials == 6


def test_all_pictures_of_a_photograph_lie_in_the_database_at_one_length(stage: Stage) -> None:
    """Otherwise the time to read and pad one would tell how well it compresses, and so whose it is."""
    results = sorted(stage.folders.results.glob("*/scene00.png"))
    assert len({path.stat().st_size for path in results}) == len(METHODS)
    with stage.database.read() as db:
        rows = db.execute(
            select(models.Rendition.image_id, models.Blob.length, func.length(models.Blob.content)).join(models.Blob)
        ).all()
    lengths: dict[int, set[tuple[int, int]]] = {}
    for image, said, found in rows:
        lengths.setdefault(image, set()).add((said, found))
    assert len(lengths) == 8
    assert all(len(found) == 1 for found in lengths.values())
    assert all(said == found for of_image in lengths.values() for said, found in of_image)


def test_the_pictures_are_lossless_and_those_on_disk(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    served = [
        np.asarray(Image.open(io.BytesIO(participant.picture(stimulus["token"]).content)))
        for stimulus in trial["candidates"]
    ]
    on_disk = [np.asarray(Image.open(path)) for path in stage.folders.results.glob("*/*.png")]
    for picture in served:
        assert picture.shape == (trial["height"], trial["width"], 3)
        assert any(np.array_equal(picture, there) for there in on_disk)


def test_the_served_file_is_never_twice_the_same(stage: Stage) -> None:
    participant = stage.participant().start()
    token = participant.get("/trial")["trial"]["candidates"][0]["token"]
    assert participant.picture(token).content != participant.picture(token).content


def test_wrong_forged_foreign_and_spent_tokens_are_refused_alike(stage: Stage) -> None:
    mine, yours = stage.participant().start(), stage.participant().start()
    trial = mine.get("/trial")["trial"]
    token = trial["candidates"][0]["token"]
    assert UUID_LIKE.match(token.encode())
    mine.answer(trial)
    fresh = mine.get("/trial")["trial"]["candidates"][0]["token"]
    refusals = [
        mine.picture(token),
        mine.picture("0" * 32),
        mine.picture("nonsense"),
        yours.picture(fresh),
        stage.client.get(f"/study/s/{fresh}"),
        stage.client.get(f"/study/s/{fresh}", headers={"Authorization": "Bearer wrong"}),
    ]
    assert {reply.status_code for reply in refusals} == {404}
    assert len({reply.content for reply in refusals}) == 1
    assert len({tuple(reply.headers.raw) for reply in refusals}) == 1
    assert mine.picture(fresh).status_code == 200


def test_the_database_holds_no_token_that_would_open_a_picture(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    with stage.database.read() as db:
        stored = set(db.execute(select(models.TrialSlot.token_hash)).scalars())
        sessions = set(db.execute(select(models.StudySession.token_hash)).scalars())
    assert not {stimulus["token"] for stimulus in trial["candidates"]} & stored
    assert participant.token not in sessions


def test_a_trial_can_say_nothing_but_what_the_blind_model_has() -> None:
    assert set(BlindTrial.model_fields) == {
        "id", "number", "practice", "width", "height", "input", "candidates", "criteria",
    }  # fmt: skip
    with pytest.raises(ValueError, match="Extra inputs"):
        BlindTrial.model_validate({"id": "a", "number": 1, "method": "x"})


@given(width=st.integers(1, 40), height=st.integers(1, 40), extra=st.integers(0, 5000), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_padding_keeps_the_pixels_and_hits_the_length(width: int, height: int, extra: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    png = encode_png(pixels)
    padded = pad_png(png, len(png) + 12 + extra, os.urandom)
    assert len(padded) == len(png) + 12 + extra
    with Image.open(io.BytesIO(padded)) as image:
        image.verify()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(padded))), pixels)
    assert [kind for kind, _ in png_chunks(padded)].count(PADDING_CHUNK) == 1


def test_one_length_fits_all_pictures_with_room_for_randomness() -> None:
    assert served_length([100, 200]) == 16 * 1024
    assert served_length([16 * 1024 - 43]) == 32 * 1024
    assert served_length([16 * 1024 - 44]) == 16 * 1024


def test_what_is_no_png_is_not_padded() -> None:
    with pytest.raises(PngError, match="no complete PNG"):
        pad_png(b"GIF89a", 100, os.urandom)
    png = encode_png(np.zeros((2, 2, 3), dtype=np.uint8))
    with pytest.raises(PngError, match="cannot be padded"):
        pad_png(png, len(png) + 11, os.urandom)
    with pytest.raises(PngError, match="breaks off"):
        list(png_chunks(png[:-3]))


def test_text_in_a_png_is_noticed() -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    assert telling_chunks(encode_png(pixels, text={"Software": "lama"})) == ["tEXt"]
    assert telling_chunks(encode_png(pixels)) == []
