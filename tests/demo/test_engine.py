"""The engine behind the demo: what it reads, runs, measures, stops and says."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from asuka_infer.baselines.telea import telea
from asuka_infer.catalog import METHODS, Method, Needs, Readiness
from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from asuka_infer.images import read_image
from asuka_infer.inpaint import Framing
from asuka_infer.inpainter import Cancelled, Inpainter
from asuka_infer.request import Hole, RgbImage
from asuka_infer.run_record import RunRecord
from demo.engine import DemoEngine, DemoError, Event, Finished, Job, Painted, Step
from tests.demo.painting import photo, save
from tests.demo.serve_demo import EXTRA
from tests.demo.test_photos import as_text


@pytest.fixture
def engine() -> DemoEngine:
    return DemoEngine(samples=SAMPLE_PICTURES[:1], methods={**METHODS, **{method.key: method for method in EXTRA}})


def square_hole(height: int, width: int) -> Hole:
    hole = np.zeros((height, width), np.bool_)
    hole[height // 3 : height // 2, width // 3 : width // 2] = True
    return hole


def finish(engine: DemoEngine, path: Path, method: str = "telea", **options: object) -> Finished:
    picture = engine.open_photo(Painted(photo=path))
    events = list(engine.run("me", picture, square_hole(*picture.size), [Job(method, 5)], **options))  # type: ignore[arg-type]
    assert isinstance(events[-1], Finished)
    return events[-1]


def open_png(done: Finished) -> Image.Image:
    return Image.open(io.BytesIO(done.png))


def test_outside_the_hole_the_file_is_the_photo_bit_for_bit(engine: DemoEngine, tmp_path: Path) -> None:
    pixels = photo(150, 120)
    done = finish(engine, save(pixels, tmp_path / "photo.png"))
    with open_png(done) as image:
        result = np.array(image)
    hole = square_hole(120, 150)
    assert np.array_equal(result[~hole], pixels[~hole])
    assert (result[hole] != pixels[hole]).any()
    assert (done.changed_outside, done.ring) == (0, 0)


def test_seamless_says_how_many_pixels_it_blended(engine: DemoEngine, tmp_path: Path) -> None:
    pixels = photo(150, 120)
    done = finish(engine, save(pixels, tmp_path / "photo.png"), compositing="seamless")
    with open_png(done) as image:
        changed = (np.array(image) != pixels).any(axis=2)
    assert done.changed_outside == np.count_nonzero(changed & ~square_hole(120, 150))
    assert done.ring >= done.changed_outside


def test_a_photo_from_a_phone_comes_back_upright_and_keeps_its_camera(engine: DemoEngine, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "Phone"
    path = save(photo(160, 90), tmp_path / "phone.jpg", exif=exif, quality=95)
    with open_png(finish(engine, path)) as image:
        assert image.size == (90, 160)
        assert image.getexif().get(0x0110) == "Phone"
        assert image.getexif().get(0x0112, 1) == 1


def test_transparency_survives_outside_the_hole(engine: DemoEngine, tmp_path: Path) -> None:
    alpha = np.tile(np.linspace(0, 255, 150).astype(np.uint8), (120, 1))
    pixels = np.dstack([photo(150, 120), alpha])
    with open_png(finish(engine, save(pixels, tmp_path / "cut.png"))) as image:
        result = np.array(image)
    hole = square_hole(120, 150)
    assert np.array_equal(result[~hole], pixels[~hole])
    assert (result[hole][:, 3] == 255).all()


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "P", "L"])
def test_photos_of_every_kind_can_be_inpainted(engine: DemoEngine, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    if mode == "I;16":
        save(photo(150, 120)[..., 0].astype(np.uint16) * 257, path)
    else:
        Image.fromarray(photo(150, 120)).convert(mode).save(path)
    done = finish(engine, path)
    assert read_image(done.png).size == (120, 150)
    assert done.changed_outside == 0


def test_the_file_says_that_it_is_generated_and_how(engine: DemoEngine, tmp_path: Path) -> None:
    done = finish(engine, save(photo(150, 120), tmp_path / "photo.png"))
    with open_png(done) as image:
        assert isinstance(image, PngImageFile)
        record = RunRecord.from_json(image.text["asuka:run_record"])
        assert "Generated" in image.text["Description"]
    assert (record.method, record.seed, record.generated) == ("telea", 5, True)


def test_progress_counts_steps_of_every_job(engine: DemoEngine, tmp_path: Path) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(80, 60), tmp_path / "photo.png")))
    jobs = engine.plan(["telea", "nearest-neighbour"], 3, 2)
    assert [(job.method, job.seed) for job in jobs] == [
        ("telea", 3), ("nearest-neighbour", 3), ("telea", 4), ("nearest-neighbour", 4),
    ]  # fmt: skip
    events = list(engine.run("me", picture, square_hole(60, 80), jobs))
    steps = [event for event in events if isinstance(event, Step)]
    assert sum(isinstance(event, Finished) for event in events) == 4
    assert [step.number for step in steps] == sorted(step.number for step in steps)
    assert {step.count for step in steps} == {4}
    assert all(step.done <= step.total for step in steps)


def test_cancel_stops_within_a_step_and_the_next_run_starts(engine: DemoEngine, tmp_path: Path) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(80, 60), tmp_path / "photo.png")))
    hole = square_hole(60, 80)
    running = engine.run("me", picture, hole, [Job("slow", 0)])
    for event in running:
        if isinstance(event, Step) and event.done == 2:
            break
    assert engine.cancel("somebody else") is False
    assert engine.cancel("me") is True
    later: list[Event] = []
    with pytest.raises(Cancelled):
        later.extend(running)
    assert sum(isinstance(event, Step) for event in later) <= 2
    assert isinstance(list(engine.run("me", picture, hole, [Job("telea", 0)]))[-1], Finished)
    assert engine.cancel("me") is False


def test_a_visitor_who_leaves_frees_the_machine(engine: DemoEngine, tmp_path: Path) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(80, 60), tmp_path / "photo.png")))
    hole = square_hole(60, 80)
    running = engine.run("gone", picture, hole, [Job("slow", 0)])
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert isinstance(list(engine.run("next", picture, hole, [Job("telea", 0)]))[-1], Finished)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("far", "Far method cannot run here yet. Download its weights first."),
        ("tela", "did you mean telea"),
        ("broken", "The method failed (RuntimeError: the weights are damaged)"),
    ],
)
def test_a_method_that_cannot_run_is_explained(engine: DemoEngine, tmp_path: Path, key: str, words: str) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(80, 60), tmp_path / "photo.png")))
    with pytest.raises(DemoError) as raised:
        list(engine.run("me", picture, square_hole(60, 80), [Job(key, 0)]))
    assert words in str(raised.value)


def bomb() -> bytes:
    """A PNG of 40,000 x 40,000 pixels in its header and nothing behind it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.parametrize("data", [b"", b"not a picture", photo(9, 9).tobytes(), bomb()])
def test_a_file_that_is_no_photo_is_refused_by_its_name(engine: DemoEngine, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(data)
    with pytest.raises(DemoError, match=r"holiday\.png"):
        engine.open_photo(Painted(photo=path))


def test_a_truncated_photo_is_refused_by_its_name(engine: DemoEngine, tmp_path: Path) -> None:
    path = save(photo(300, 200), tmp_path / "holiday.jpg")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DemoError, match=r"holiday\.jpg"):
        engine.open_photo(Painted(photo=path))


def test_a_photo_that_was_swept_away_is_asked_for_again(engine: DemoEngine, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="open it again"):
        engine.open_photo(Painted(photo=tmp_path / "gone.png"))
    with pytest.raises(DemoError, match="choose one first"):
        engine.open_photo(Painted())


@pytest.mark.parametrize(("value", "words"), [(False, "Nothing is painted yet"), (True, "Everything is painted")])
def test_a_hole_of_nothing_or_everything_is_explained(engine: DemoEngine, value: bool, words: str) -> None:  # noqa: FBT001 - a case, not a flag
    painted = Painted(hole=as_text(np.full((60, 80), value)))
    with pytest.raises(DemoError, match=words):
        engine.read_hole(painted, (60, 80))


def test_an_uploaded_mask_is_fitted_and_its_polarity_guessed(engine: DemoEngine, tmp_path: Path) -> None:
    mask = np.full((300, 400), 255, np.uint8)
    mask[100:200, 100:300] = 0
    opened = engine.open_mask(save(mask, tmp_path / "mask.png"), (3000, 4000))
    assert opened.flipped
    assert opened.hole.shape == (1152, 1536)
    hole = engine.read_hole(Painted(mask=tmp_path / "mask.png", mask_flipped=True), (3000, 4000))
    expected = np.zeros((3000, 4000), np.bool_)
    expected[1000:2000, 1000:3000] = True
    assert np.array_equal(hole, expected)


def test_ready_methods_come_first_and_one_of_them_is_chosen(engine: DemoEngine) -> None:
    far = Method("asuka-far", "Far", "-", "-", "-", load=EXTRA[0].load, readiness=lambda: Readiness(False))  # noqa: FBT003
    assert DemoEngine(methods={"asuka-far": far, **METHODS}).favourite() == "asuka-mini"
    classical = {key: method for key, method in METHODS.items() if not key.endswith("-mini")}
    assert DemoEngine(methods={"asuka-far": far, **classical}).favourite() == "nearest-neighbour"
    with pytest.raises(DemoError, match="No method can run here"):
        DemoEngine(methods={"asuka-far": far}).favourite()
    assert engine.favourite() in METHODS


@pytest.mark.parametrize(("keys", "candidates", "words"), [([], 1, "0 methods"), (["telea"], 9, "9 candidates")])
def test_too_much_or_too_little_is_refused(engine: DemoEngine, keys: list[str], candidates: int, words: str) -> None:
    with pytest.raises(DemoError, match=words):
        engine.plan(keys, 0, candidates)


def test_a_method_s_own_settings_change_its_result_and_stand_in_the_record(engine: DemoEngine, tmp_path: Path) -> None:
    path = save(photo(150, 120), tmp_path / "photo.png")
    knob = next(knob for knob in engine.knobs("telea") if knob.name == "radius")
    assert knob.accepts(15)
    assert knob.default != 15
    picture = engine.open_photo(Painted(photo=path))
    jobs = engine.plan(["telea"], 5, 1, {"telea": {"radius": 15}})
    *_, done = engine.run("me", picture, square_hole(*picture.size), jobs)
    assert isinstance(done, Finished)
    assert done.record.settings["radius"] == 15
    assert done.png != finish(engine, path).png


def test_a_setting_that_does_not_exist_is_explained(engine: DemoEngine, tmp_path: Path) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(150, 120), tmp_path / "photo.png")))
    with pytest.raises(DemoError, match="no setting 'stpes'"):
        list(engine.run("me", picture, square_hole(*picture.size), [Job("telea", 5, {"stpes": 3})]))


def test_a_method_that_is_not_here_has_nothing_to_turn(engine: DemoEngine) -> None:
    assert engine.knobs("far") == ()
    assert engine.knobs("unheard-of") == ()


def test_methods_make_room_for_each_other_within_the_budget(tmp_path: Path) -> None:
    loads: list[str] = []

    def method(key: str, memory_mb: int) -> Method:
        def load() -> Inpainter:
            loads.append(key)
            return telea()

        return Method(key, key, "-", "-", "-", load, Needs(memory_mb=memory_mb))

    engine = DemoEngine(
        methods={key: method(key, size) for key, size in {"a": 600, "b": 300, "c": 500}.items()}, memory_mb=1000
    )
    path = save(photo(80, 60), tmp_path / "photo.png")
    for key in "abaca":
        finish(engine, path, key)
    assert loads == ["a", "b", "c", "a"]
    engine = DemoEngine(methods={"giant": method("giant", 2000)}, memory_mb=1000)
    with pytest.raises(DemoError, match="giant needs 2000 MB but the budget for loaded methods is 1000 MB"):
        finish(engine, path, "giant")


def test_a_look_shows_the_crop_with_the_hole_grey_and_what_the_method_imagines(
    engine: DemoEngine, tmp_path: Path
) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(600, 400), tmp_path / "photo.png")))
    hole = np.zeros((400, 600), np.bool_)
    hole[100:140, 200:260] = True
    seen = engine.look(Job("prior", 5), picture, hole, framing=Framing(0.5))
    assert sorted(seen) == ["prior", "seen"]
    grey = (seen["seen"] == 127).all(axis=2)
    assert grey.sum() == 40 * 60
    top, left = (int(np.flatnonzero(grey.any(axis=axis))[0]) for axis in (1, 0))
    expected = picture.pixels.copy()
    expected[hole] = 127
    height, width = seen["seen"].shape[:2]
    assert max(height, width) < 200
    assert np.array_equal(seen["seen"], expected[100 - top : 100 - top + height, 200 - left : 200 - left + width])
    assert list(engine.look(Job("telea", 5), picture, hole)) == ["seen"]


def test_a_look_that_fails_is_put_into_words(engine: DemoEngine, tmp_path: Path) -> None:
    picture = engine.open_photo(Painted(photo=save(photo(60, 40), tmp_path / "photo.png")))
    with pytest.raises(DemoError, match="weights are damaged"):
        engine.look(Job("broken", 5), picture, square_hole(40, 60))


def test_a_result_that_the_safety_checker_refuses_never_reaches_anybody(tmp_path: Path) -> None:
    asked: list[tuple[bool, int]] = []

    def may_be_shown(image: RgbImage, hole: Hole) -> bool:
        asked.append((bool((image[hole] == pixels[hole]).all()), int(hole.sum())))
        return len(asked) > 1

    pixels = photo(80, 60)
    engine = DemoEngine(may_be_shown=may_be_shown)
    path = save(pixels, tmp_path / "photo.png")
    with pytest.raises(DemoError, match="safety checker held this result back"):
        finish(engine, path)
    assert finish(engine, path).record.method == "telea"
    assert asked == [(False, int(square_hole(60, 80).sum()))] * 2, "it sees the result, not the photo"
