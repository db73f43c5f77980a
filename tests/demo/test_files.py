"""The files a visitor takes home, read back with a library of their own."""

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image, ImageCms

from asuka_infer.catalog import METHODS
from asuka_infer.images import ImageError, read_image
from asuka_infer.inpaint import inpaint
from asuka_infer.provenance import NAMESPACE, TRAINED_SOURCE, UNTRAINED_SOURCE, source_type, xmp_packet
from asuka_infer.request import Hole
from asuka_infer.run_record import RunRecord
from demo.files import FileFormat, FileFormatError, convert, encode_result
from tests.demo.painting import photo

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def in_another_profile() -> bytes:
    """A profile that is not sRGB: Display P3's primaries would do, Pillow has only XYZ and LAB, so gamma is changed."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # The three red, green and blue curves of Pillow's sRGB are parametric; another exponent makes other colours.
    at = data.index(b"para")
    data[at + 12 : at + 16] = (0x00018000).to_bytes(4, "big")
    return bytes(data)


def camera_file(folder: Path, *, alpha: bool = False, icc: bytes | None = None) -> Path:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera"
    pixels = photo(90, 60)
    if alpha:
        pixels = np.dstack([pixels, np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))])
    path = folder / "camera.png"
    extras: dict[str, Any] = {"icc_profile": icc} if icc else {}
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), **extras)
    return path


def a_hole(size: tuple[int, int]) -> Hole:
    hole = np.zeros(size, np.bool_)
    hole[20:40, 15:35] = True
    return hole


def result_of(path: Path) -> tuple[bytes, RunRecord]:
    picture = read_image(path)
    hole, method = a_hole(picture.size), METHODS["telea"]
    done = inpaint(method.load(), "telea", picture, hole, seed=9)
    return encode_result(method, picture, hole, done), done.record


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def entries(packet: bytes | str) -> dict[str, str]:
    """The attributes of an XMP packet, read by Python's own XML parser."""
    root = ET.fromstring(packet.decode() if isinstance(packet, bytes) else packet)  # noqa: S314 - written by this test
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return dict(description.attrib)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_every_format_keeps_the_camera_the_profile_and_says_how_it_was_made(tmp_path: Path, form: FileFormat) -> None:
    profile = in_another_profile()
    png, record = result_of(camera_file(tmp_path, icc=profile))
    image = opened(convert(png, form).data)
    assert image.format == form.upper()
    assert image.size == (60, 90)
    assert image.getexif().get(0x0110) == "Camera"
    assert image.getexif().get(0x0112, 1) == 1
    assert image.info["icc_profile"] == profile
    said = entries(image.info["xmp"])
    assert said[f"{IPTC}DigitalSourceType"] == UNTRAINED_SOURCE
    assert (said[f"{{{NAMESPACE}}}method"], said[f"{{{NAMESPACE}}}seed"]) == ("telea", "9")
    assert json.loads(said[f"{{{NAMESPACE}}}runRecord"]) == json.loads(record.to_json())


@pytest.mark.parametrize("form", ["png", "webp"])
def test_formats_without_loss_store_every_pixel_and_the_transparency(tmp_path: Path, form: FileFormat) -> None:
    path = camera_file(tmp_path, alpha=True)
    png, _ = result_of(path)
    done = convert(png, form)
    assert done.changed == 0
    stored, before = np.asarray(opened(done.data).convert("RGBA")), np.asarray(opened(png).convert("RGBA"))
    assert np.array_equal(stored, before)
    upright = np.rot90(np.asarray(Image.open(path)), -1)
    hole = a_hole((90, 60))
    assert np.array_equal(stored[~hole], upright[~hole])
    assert (stored[hole][:, 3] == 255).all()


def test_jpeg_counts_the_pixels_it_moved(tmp_path: Path) -> None:
    png, _ = result_of(camera_file(tmp_path))
    done = convert(png, "jpeg")
    moved = (np.asarray(opened(done.data)) != np.asarray(opened(png).convert("RGB"))).any(axis=2)
    assert done.changed == moved.sum() > 0
    assert done.suffix == ".jpg"


def test_a_picture_that_a_format_cannot_hold_is_refused_with_one_that_can(tmp_path: Path) -> None:
    png, _ = result_of(camera_file(tmp_path, alpha=True))
    with pytest.raises(FileFormatError, match=r"transparent parts.*choose PNG or WebP"):
        convert(png, "jpeg")
    wide = io.BytesIO()
    Image.new("RGB", (16384, 2)).save(wide, "PNG")
    with pytest.raises(FileFormatError, match="16384x2, but WEBP holds at most 16383"):
        convert(wide.getvalue(), "webp")


def test_a_result_that_was_swept_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png"):
        convert(tmp_path / "gone.png", "jpeg")


def test_a_file_on_the_disk_converts_like_its_bytes(tmp_path: Path) -> None:
    png, _ = result_of(camera_file(tmp_path))
    (tmp_path / "result.png").write_bytes(png)
    assert convert(tmp_path / "result.png", "webp").data == convert(png, "webp").data
    assert convert(tmp_path / "result.png", "png").data == png


def test_a_trained_method_is_called_so_and_odd_characters_survive() -> None:
    record = RunRecord(
        method="asuka-mini", seed=1, settings={"prompt": 'a "red" <boat> & the sea\n海'}, framing={},
        compositing="exact", image_sha256="0" * 64, hole_sha256="1" * 64, result_sha256="2" * 64, width=4, height=3,
        weights={"mini.safetensors": "ab" * 32}, versions={"asuka-app": "0.1.0"}, seconds=1.0,
        created_at="2026-11-21T12:00:00+00:00",
    )  # fmt: skip
    assert source_type(record) == TRAINED_SOURCE
    said = entries(xmp_packet(record))
    assert said[f"{IPTC}DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert RunRecord.from_json(said[f"{{{NAMESPACE}}}runRecord"]) == record
