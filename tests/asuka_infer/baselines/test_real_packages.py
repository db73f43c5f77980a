"""LaMa and MI-GAN through the packages that really run them: random weights of the real network, a real ONNX graph."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from spandrel.architectures.LaMa import LaMa

from asuka_infer.catalog import find_method
from asuka_infer.inpaint import inpaint
from asuka_infer.request import Hole, RgbImage

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:FutureWarning")  # spandrel's own


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("ASUKA_DEVICE", "cpu")
    return tmp_path


def scene() -> tuple[RgbImage, Hole]:
    image = np.random.default_rng(1).integers(1, 256, (70, 110, 3), dtype=np.uint8)
    hole = np.zeros((70, 110), np.bool_)
    hole[20:40, 30:60] = True
    return image, hole


def test_the_real_spandrel_reads_a_lama_file_and_paints_the_hole_alone(here: Path) -> None:
    torch.manual_seed(0)
    (here / "lama").mkdir()
    network: Any = LaMa(in_nc=4, out_nc=3)
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()}, here / "lama" / "big.safetensors"
    )
    image, hole = scene()
    method = find_method("lama").load()
    done = inpaint(method, "lama", image, hole, seed=1)
    assert done.changed_outside == 0
    hidden = image.copy()
    hidden[hole] = 255 - image[hole]
    assert np.array_equal(inpaint(method, "lama", hidden, hole, seed=1).image, done.image), "nothing hidden is read"


def test_the_real_onnxruntime_runs_a_pipeline_that_paints_where_the_mask_is_not_255(here: Path) -> None:
    (here / "migan").mkdir()
    onnx.save(_painting_nine(), here / "migan" / "migan_pipeline_v2.onnx")
    image, hole = scene()
    done = inpaint(find_method("migan").load(), "migan", image, hole)
    assert (done.image[hole] == 9).all()
    assert np.array_equal(done.image[~hole], image[~hole])


def _painting_nine() -> onnx.ModelProto:
    """The interface of MI-GAN's published pipeline, (1, 3, h, w) and (1, 1, h, w) uint8 in, (1, 3, h, w) uint8 out."""
    nodes = [
        helper.make_node("Equal", ["mask", "known"], ["keep"]),
        helper.make_node("Where", ["keep", "image", "nine"], ["result"]),
    ]
    values = [("image", 3), ("mask", 1), ("result", 3)]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, channels, None, None]) for name, channels in values
    ]
    constants = [
        helper.make_tensor("known", TensorProto.UINT8, [], [255]),
        helper.make_tensor("nine", TensorProto.UINT8, [], [9]),
    ]
    graph = helper.make_graph(nodes, "pipeline", infos[:2], infos[2:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
