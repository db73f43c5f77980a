"""The loaders of published networks, on random weights under the published names, against independent computations."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image.lpips import _LPIPS  # pyright: ignore[reportPrivateUsage] - the oracle
from torchvision.models import Inception_V3_Weights, alexnet, inception_v3
from torchvision.transforms.functional import to_pil_image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from asuka_infer.metrics.clip import ClipVision
from asuka_infer.metrics.inception import TensorflowInception, TorchvisionInception
from asuka_infer.metrics.lpips import LpipsAlex
from asuka_infer.weights import WeightsError


def pictures(count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_lpips_is_torchmetrics_lpips_on_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = alexnet(weights=None)
    reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True)  # its heads are the published ones
    slices: Any = cast("Any", reference).net
    for name, value in backbone.features.state_dict().items():
        slices.state_dict()[next(key for key in slices.state_dict() if key.endswith("." + name))].copy_(value)
    torch.save(backbone.state_dict(), tmp_path / "alexnet.pth")
    heads = {key: value for key, value in reference.state_dict().items() if key.startswith("lin") and "lins" not in key}
    torch.save(heads, tmp_path / "heads.pth")
    one, other = pictures(), pictures(seed=1)

    told = LpipsAlex(tmp_path / "alexnet.pth", tmp_path / "heads.pth").distance(one, other)
    with torch.no_grad():
        expected = reference(one, other, normalize=True).flatten()
    assert torch.allclose(told, expected, atol=1e-6)
    assert told.min() > 0


def test_lpips_refuses_the_heads_of_another_network(tmp_path: Path) -> None:
    layers = alexnet(weights=None).features
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "alexnet.pth")
    torch.save({f"lin{tap}.model.1.weight": torch.zeros(1, 512, 1, 1) for tap in range(5)}, tmp_path / "vgg.pth")

    with pytest.raises(WeightsError, match=r"vgg\.pth does not fit"):
        LpipsAlex(tmp_path / "alexnet.pth", tmp_path / "vgg.pth")
    with pytest.raises(WeightsError, match="no weight file"):
        LpipsAlex(tmp_path / "none.pth", tmp_path / "vgg.pth")


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("inception") / "inception.pth"
    network = inception_v3(weights=None, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), file)
    return file


def test_the_torchvision_convention_is_its_own_network_after_its_own_transform(inception_file: Path) -> None:
    plain = inception_v3(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    plain.load_state_dict(torch.load(inception_file, weights_only=True))
    plain.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    plain.eval()
    images = pictures(1, size=128)
    transform = Inception_V3_Weights.IMAGENET1K_V1.transforms()

    with torch.no_grad():
        assert torch.allclose(TorchvisionInception(inception_file).embed(images), plain(transform(images)), atol=1e-5)


def test_the_tensorflow_convention_pools_without_padding_and_ends_with_a_maximum(
    inception_file: Path, tmp_path: Path
) -> None:
    state = torch.load(inception_file, weights_only=True)
    old = {key: value for key, value in state.items() if "num_batches" not in key and not key.startswith("AuxLogits")}
    old["fc.weight"], old["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    torch.save(old, tmp_path / "pt_inception.pth")
    told = TensorflowInception(tmp_path / "pt_inception.pth")
    plain: Any = inception_v3(weights=None, aux_logits=True, init_weights=False)
    plain.load_state_dict(state)
    plain.eval()
    features = torch.rand(1, 2048, 8, 8, generator=torch.Generator().manual_seed(1))
    ones = functional.avg_pool2d(torch.ones(1, 1, 8, 8), 3, 1, 1)
    network: Any = told.network

    with torch.no_grad():
        pooled = functional.avg_pool2d(features[:, :1280], 3, 1, 1) / ones
        assert torch.allclose(
            network.Mixed_7b(features[:, :1280])[:, -192:], plain.Mixed_7b.branch_pool(pooled), atol=1e-5
        )
        largest = functional.unfold(functional.pad(features, [1] * 4, value=-torch.inf), 3)
        largest = largest.view(1, 2048, 9, 64).amax(2).view(1, 2048, 8, 8)
        assert torch.allclose(network.Mixed_7c(features)[:, -192:], plain.Mixed_7c.branch_pool(largest), atol=1e-5)
        assert told.embed(pictures(1, size=40)).shape == (1, 2048)


def test_another_network_s_file_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")

    for loader in (TorchvisionInception, TensorflowInception):
        with pytest.raises(WeightsError, match=r"other\.pth does not fit"):
            loader(tmp_path / "other.pth")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=24,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    cast("Any", CLIPVisionModelWithProjection(config)).save_pretrained(folder)
    return folder


def test_clip_sees_what_its_own_processor_shows_it(clip_folder: Path) -> None:
    network = ClipVision(clip_folder)
    images = (pictures(2, size=64) * 255).round() / 255
    processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    shown = processor([to_pil_image(image) for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = network.model(pixel_values=shown).image_embeds

    assert network.width == 24
    # Pillow rounds the scaled picture to bytes, half a level of 255, before the network sees it.
    assert functional.cosine_similarity(network.embed(images), expected).min() > 1 - 1e-3
    assert torch.allclose(network.similarity(images, images), torch.ones(2), atol=1e-6)


def test_a_clip_that_is_not_here_is_told_how_to_get(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no CLIP model that is here"):
        ClipVision(tmp_path)


def test_pictures_have_vectors_of_the_width_that_is_told(clip_folder: Path) -> None:
    assert np.asarray(ClipVision(clip_folder).embed(pictures(3, size=40))).shape == (3, 24)
