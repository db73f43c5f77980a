"""The small rivals compute what their papers say, begin at the smoothest fill, and refuse foreign weights."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asuka_infer import catalog
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.baselines.context_encoder_mini import ContextEncoder
from asuka_infer.baselines.contextual_attention_mini import (
    SHARPNESS,
    TINY,
    ContextualAttention,
    contextual_attention,
    propagated,
)
from asuka_infer.baselines.dfnet_mini import DeepFusion, FusionBlock
from asuka_infer.baselines.lama_mini import Branches, FourierConvolution, FourierUnit, Lama
from asuka_infer.baselines.one_pass import WEIGHTS_FOLDER, OnePass, load_one_pass, paint, save_one_pass
from asuka_infer.request import InpaintRequest
from asuka_infer.weights import WeightsError


def random_picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- lama-mini: fast Fourier convolution -----------------------------------------------------------------------------


def test_a_fourier_unit_is_a_pointwise_layer_between_the_sums_that_define_the_fourier_transform() -> None:
    torch.manual_seed(1)
    unit, (height, width) = FourierUnit(2), (4, 6)
    x = random_picture(1, 2, height, width)
    rows, columns = np.arange(height), np.arange(width)

    def wave(k: int, m: int) -> np.ndarray[Any, Any]:
        return np.exp(2j * math.pi * (k * rows[:, None] / height + m * columns[None, :] / width))

    weight = unit.conv.weight.detach().numpy()[:, :, 0, 0]
    bias = unit.conv.bias.detach().numpy()  # pyright: ignore[reportOptionalMemberAccess] - it has one
    expected = np.zeros((2, height, width))
    for k in range(height):
        for m in range(width // 2 + 1):
            bins = (x[0].numpy() * wave(-k, -m)).sum((1, 2)) / math.sqrt(height * width)
            mixed = np.maximum(weight @ np.concatenate([bins.real, bins.imag]) + bias, 0)
            # A real signal has every frequency twice, except those that are their own mirror.
            times = 1 if m in {0, width // 2} else 2
            expected += times * ((mixed[:2] + 1j * mixed[2:])[:, None, None] * wave(k, m)).real
    with torch.no_grad():
        found = unit(x)[0].numpy()
    assert found == pytest.approx(expected / math.sqrt(height * width), abs=1e-5)


def test_one_fourier_convolution_lets_every_place_hear_every_other_in_the_global_branch_alone() -> None:
    torch.manual_seed(2)
    layer = FourierConvolution(2, 6)
    for bias in (layer.far_to_far.narrow.bias, layer.far_to_far.unit.conv.bias):
        nn.init.constant_(bias, 9.0)  # pyright: ignore[reportArgumentType] - they have one; no ReLU is silent
    near, far = random_picture(1, 2, 16, 16), random_picture(1, 6, 16, 16).requires_grad_()
    answer = layer(Branches(near, far))
    (heard_far,) = torch.autograd.grad(answer.far[0, :, 8, 8].sum(), far, retain_graph=True)
    (heard_near,) = torch.autograd.grad(answer.near[0, :, 8, 8].sum(), far)
    assert (heard_far[0].abs().sum(0) > 0).all()
    reach = np.argwhere(heard_near[0].abs().sum(0).numpy() > 0)
    assert (reach.min(0).tolist(), reach.max(0).tolist()) == ([7, 7], [9, 9])


# --- contextual-attention-mini ---------------------------------------------------------------------------------------


def test_contextual_attention_is_the_softmax_of_propagated_cosines_over_known_patches_pasted_and_averaged() -> None:
    cells = 4
    features = random_picture(1, 3, 2 * cells, 2 * cells, seed=3) - 0.4
    missing = torch.zeros(1, 1, cells, cells, dtype=torch.bool)
    missing[0, 0, 1:3, 2:4] = True
    found = contextual_attention(features, missing)[0].numpy()

    fine = features[0].numpy()
    coarse = np.pad(fine[:, ::2, ::2], ((0, 0), (1, 1), (1, 1)))
    patches = {(r, c): coarse[:, r : r + 3, c : c + 3].ravel() for r in range(cells) for c in range(cells)}
    unit = {place: patch / (math.sqrt((patch**2).sum()) + TINY) for place, patch in patches.items()}

    def cosine(patch: tuple[int, int], place: tuple[int, int]) -> float:
        return float(unit[patch] @ unit[place]) if patch in unit and place in unit else 0.0

    def score(p: tuple[int, int], q: tuple[int, int]) -> float:
        steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        return sum(cosine((p[0] + i, p[1] + j), (q[0] + i, q[1] + j)) for i, j in steps)

    known = [place for place in patches if not missing[0, 0, place[0], place[1]]]
    padded = np.pad(fine, ((0, 0), (1, 1), (1, 1)))
    total, count = np.zeros_like(padded), np.zeros(padded.shape[1:])
    for q in patches:
        powers = np.array([math.exp(SHARPNESS * score(p, q)) for p in known])
        blend = sum(
            share * padded[:, 2 * r : 2 * r + 4, 2 * c : 2 * c + 4]
            for share, (r, c) in zip(powers / powers.sum(), known, strict=True)
        )
        total[:, 2 * q[0] : 2 * q[0] + 4, 2 * q[1] : 2 * q[1] + 4] += blend
        count[2 * q[0] : 2 * q[0] + 4, 2 * q[1] : 2 * q[1] + 4] += 1
    assert found == pytest.approx((total / count)[:, 1:-1, 1:-1], abs=1e-4)


def test_a_match_counts_for_its_neighbours_only_where_patch_and_place_move_together() -> None:
    scores = torch.zeros(1, 9, 9)
    scores[0, 4, 4] = 1.0  # the middle patch at the middle place
    spread = propagated(scores, (3, 3))[0]
    assert torch.equal(spread, torch.eye(9))


def test_where_nothing_is_known_every_cell_may_be_copied() -> None:
    everything = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert torch.isfinite(contextual_attention(random_picture(1, 2, 8, 8), everything)).all()


# --- dfnet-mini ------------------------------------------------------------------------------------------------------


def test_a_fusion_block_composes_its_completion_with_the_input_by_alpha_colour_by_colour() -> None:
    torch.manual_seed(4)
    block = FusionBlock(5)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    features, known = random_picture(1, 5, 3, 3, seed=5), random_picture(1, 3, 3, 3, seed=6)
    with torch.no_grad():
        found = block(features, known)[0].numpy()

    values = {name: value.detach().numpy() for name, value in block.named_parameters()}
    completion = np.einsum("oi,ihw->ohw", values["complete.weight"][:, :, 0, 0], features[0].numpy()) + 0.5
    completion += values["complete.bias"][:, None, None]
    both = np.concatenate([completion, known[0].numpy()])
    hidden = np.einsum("oi,ihw->ohw", values["compose.0.weight"][:, :, 0, 0], both)
    hidden += values["compose.0.bias"][:, None, None]
    hidden = np.pad(np.where(hidden > 0, hidden, 0.2 * hidden), ((0, 0), (1, 1), (1, 1)))
    middle = np.einsum("oikl,ikl->o", values["compose.2.weight"], hidden[:, 1:4, 1:4]) + values["compose.2.bias"]
    alpha = 1 / (1 + np.exp(-middle))
    expected = alpha * completion[:, 1, 1] + (1 - alpha) * known[0, :, 1, 1].numpy()
    assert found[:, 1, 1] == pytest.approx(expected, abs=1e-5)


# --- context-encoder-mini --------------------------------------------------------------------------------------------


def test_the_context_encoder_has_the_layer_table_of_its_source_at_a_quarter_of_the_widths() -> None:
    network = ContextEncoder()
    table = [(layer.in_channels, layer.out_channels) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    back = [
        (layer.in_channels, layer.out_channels) for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d)
    ]
    # Source 003: 3-64-128-256-512-512-512-512 and back; the hole is a fourth channel here.
    assert table == [(4, 16), (16, 32), (32, 64), (64, 96), (96, 96), (96, 96), (96, 96)]
    assert back == [(96, 96), (96, 96), (96, 96), (96, 64), (64, 32), (32, 16), (16, 3)]
    every = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in every} == {((4, 4), (2, 2), (1, 1))}


# --- all of them -----------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "context-encoder-mini": lambda: ContextEncoder((8, 8, 8)),
    "lama-mini": lambda: Lama(16, blocks=1),
    "contextual-attention-mini": lambda: ContextualAttention(16),
    "dfnet-mini": lambda: DeepFusion((8, 8, 8, 8)),
}


@pytest.mark.parametrize("key", SMALL)
def test_an_untrained_network_paints_no_wilder_than_the_smoothest_fill(key: str) -> None:
    torch.manual_seed(7)
    image = random_picture(2, 3, 32, 48)
    hole = torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    hole[:, :, 8:20, 10:30] = True
    with torch.no_grad():
        painted = paint(SMALL[key](), image, hole)
    # dfnet-mini begins with an eighth of its own completion, the others with none.
    assert painted.shape == image.shape
    assert float((painted - first_fill(image, hole)).abs().max()) < (0.2 if key == "dfnet-mini" else 1e-6)


@pytest.mark.parametrize("key", SMALL)
def test_weights_come_back_from_their_file_and_those_of_another_size_are_refused(key: str, tmp_path: Path) -> None:
    torch.manual_seed(8)
    network: OnePass = SMALL[key]()
    for parameter in network.parameters():
        parameter.data = (parameter.data + 0.01 * torch.randn(parameter.shape)).half().float()
    digest = save_one_pass(network, key, tmp_path)

    method = load_one_pass(SMALL[key], key, tmp_path)

    assert method.weights == {f"{key}.safetensors": digest}
    hole = np.zeros((40, 30), bool)
    hole[5:20, 5:20] = True
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    assert method(InpaintRequest(image, hole)).image.shape == image.shape
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), method.model.parameters(), strict=True))
    with pytest.raises(WeightsError, match="does not fit"):
        load_one_pass(lambda: Lama(32, blocks=1), key, tmp_path)
    file = tmp_path / f"{key}.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"!!")
    with pytest.raises(WeightsError, match=r"not the file that weights\.json"):
        load_one_pass(SMALL[key], key, tmp_path)


def test_a_rival_is_a_method_exactly_where_its_weights_lie_and_untrained_ones_name_the_file_they_lack() -> None:
    trained = {file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors")}
    assert {rival.key for rival in catalog.RIVALS} == set(SMALL)
    assert trained == set(SMALL) & set(catalog.METHODS)
    for rival in catalog.RIVALS:
        if rival.key not in trained:
            with pytest.raises(WeightsError, match=rf"no weight file .*{rival.key}\.safetensors"):
                rival.load()


def test_all_weights_of_the_repository_stay_small_enough_for_plain_git() -> None:
    sizes = [file.stat().st_size for file in Path(catalog.__file__).parent.rglob("*.safetensors")]
    assert max(sizes) <= 9 * 2**20
    assert sum(sizes) <= 48e6


def test_weights_beyond_half_precision_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    network = ContextEncoder((8, 8, 8))
    network.to_rgb.weight.data.fill_(1e6)
    with pytest.raises(WeightsError, match=r"to_rgb\.weight"):
        save_one_pass(network, "context-encoder-mini", tmp_path)
    assert not list(tmp_path.iterdir())
