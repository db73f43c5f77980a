"""A set of one's own: one image per cluster, the one in its middle; holes clear of the foreground; resumable."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_0

from asuka_infer.cli import main
from asuka_infer.datasets import misato
from asuka_infer.datasets.misato import Domain, MisatoError, build, centre_crop, medoids, parse_domain
from asuka_infer.holes import hole_sha256, read_hole
from asuka_infer.images import encode_grey_png, encode_png, pixel_sha256, read_image
from asuka_infer.metrics.instruments import Instrument, find_instruments


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Instrument:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(squeezenet1_0(weights=None).state_dict(), folder / "squeezenet1_0_random.pth")
    return find_instruments(["squeezenet"], folder)[0][-1]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for domain in ("indoor", "coco", "segments"):
        (tmp_path / domain).mkdir()
    for number in range(8):
        tint = np.array([200, 30, 30]) if number % 2 else np.array([30, 30, 200])
        picture = np.clip(rng.normal(tint, 15, (70, 90, 3)), 0, 255).astype(np.uint8)
        (tmp_path / "indoor" / f"{number}.png").write_bytes(encode_png(picture))
        (tmp_path / "coco" / f"c{number}.png").write_bytes(encode_png(picture[:, ::-1]))
        mask = np.zeros((70, 90), np.uint8)
        mask[20:50, 30:60] = 7
        (tmp_path / "segments" / f"c{number}.png").write_bytes(encode_grey_png(mask))
    return tmp_path


def domains(folders: Path) -> list[Domain]:
    return [Domain("indoor", folders / "indoor"), Domain("background", folders / "coco", folders / "segments")]


def test_each_cluster_is_stood_for_by_the_member_nearest_its_mean() -> None:
    rng = np.random.default_rng(3)
    centres = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])
    groups = rng.integers(0, 4, 200)
    features = (centres[groups] + rng.normal(0, 3, (200, 2))).astype(np.float32)
    expected = []
    for group in range(4):
        members = np.flatnonzero(groups == group)
        apart = np.linalg.norm(features[members] - features[members].mean(0), axis=1)
        expected.append((int(members[apart.argmin()]), len(members)))

    assert medoids(features, 4, seed=0) == sorted(expected)


def test_the_centre_is_cropped_and_scaled() -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 200

    assert (centre_crop(picture, 16) == 200).all()
    assert centre_crop(picture, 64).shape == (64, 64, 3)


def test_a_set_is_built_with_domains_by_number_and_hashes_of_everything(folders: Path, network: Instrument) -> None:
    assert build(domains(folders), folders / "out", network, clusters=2, size=48) == 4
    told = json.loads((folders / "out/manifest.json").read_text())

    assert [row["domain"] for row in told["images"]] == ["indoor"] * 2 + ["background"] * 2
    assert (folders / "out/domains.csv").read_text().splitlines()[1:3] == ["0000.png,indoor", "0001.png,indoor"]
    # One of each tint, and each stands for the four like it.
    assert sorted(int(row["source"][0]) % 2 for row in told["images"][:2]) == [0, 1]
    assert [row["stands_for"] for row in told["images"]] == [4] * 4
    for row in told["images"]:
        image, hole = read_image(folders / "out/images" / row["file"]), read_hole(folders / "out/holes" / row["file"])
        assert image.size == hole.shape == (48, 48)
        assert row["image_sha256"] == pixel_sha256(image.pixels)
        assert row["hole_sha256"] == hole_sha256(hole)
        if row["foreground"]:
            # 20..50 of 70 rows; columns 30..60 of 90 are 20..50 of the central 70.
            assert not hole[15:33, 15:33].any()
    assert [row["foreground"] for row in told["images"]] == [False, False, True, True]


def test_a_second_run_computes_no_feature_and_writes_the_same(
    folders: Path, network: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folders / "out").rglob("*.[pjc]*") if path.is_file()}

    steps: list[int] = []
    build(domains(folders), folders / "out", network, clusters=3, size=48, step=steps.append)
    before = files()
    assert sum(steps) == 16

    def never(*_: object) -> None:
        raise AssertionError("a feature was computed again")

    monkeypatch.setattr(misato, "embed", never)
    (folders / "out/images/0001.png").unlink()
    build(domains(folders), folders / "out", network, clusters=3, size=48)
    assert files() == before


def test_what_no_set_can_be_made_of_is_refused(folders: Path, network: Instrument) -> None:
    with pytest.raises(MisatoError, match="9 clusters need as many pictures, but indoor has 8"):
        build(domains(folders)[:1], folders / "out", network, clusters=9)
    with pytest.raises(MisatoError, match="share a name"):
        build(domains(folders)[:1] * 2, folders / "out", network)
    for file in (folders / "segments").iterdir():
        file.unlink()
    with pytest.raises(MisatoError, match="has no segmentation"):
        build(domains(folders), folders / "out", network, clusters=2, size=48)
    build(domains(folders)[:1], folders / "two", network, clusters=2, size=48)
    with pytest.raises(MisatoError, match="write to another folder"):
        build(domains(folders)[:1], folders / "two", network, clusters=2, size=48, seed=1)
    with pytest.raises(MisatoError, match="no domain"):
        parse_domain("indoor")


def test_the_command_builds_a_set(folders: Path, network: Instrument, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "misato", f"--domain=indoor={folders / 'indoor'}", f"--domain=b={folders / 'coco'}:{folders / 'segments'}",
        f"--out={folders / 'out'}", "--clusters=2", "--size=32", "--features=squeezenet",
        f"--weights={Path(network.files[0]).parent}",
    ]  # fmt: skip

    assert main(words) == 0
    assert "4 images of 2 domains by squeezenet" in capsys.readouterr().out
    assert main([*words, "--features=none"]) == 2
    assert "name one network" in capsys.readouterr().err
