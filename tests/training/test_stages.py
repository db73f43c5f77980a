"""Each stage learns its own part from its own batch, and does to its batch what the paper says."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asuka_infer.asuka.mini import MiniModel
from asuka_infer.asuka.schedule import STEPS
from training import alignment, backbone, decoder, mae, vae
from training.alignment import misaligned_share
from training.backbone import DiffusionObjective, draw_scenes, told
from training.chain import STAGES, StageName, assemble
from training.loop import LOG, Moment, train, weights_of
from training.mae import MaeObjective, topped_up, without_oversized
from training.presets import MODELS, Bench, Growth
from training.vae import VaeObjective


def moment(step: int = 0) -> Moment:
    generator = torch.Generator().manual_seed(step)
    return Moment(step, 0.0, np.random.default_rng(step), generator, torch.device("cpu"))


@pytest.fixture
def model() -> MiniModel:
    torch.manual_seed(0)
    return MiniModel(MODELS["tiny"])


# --- MAE -------------------------------------------------------------------------------------------------------------


def test_tokens_are_topped_up_to_exactly_what_is_removed_and_never_lose_a_touched_one() -> None:
    touched = torch.tensor([[True, False, True, False, False, False], [False] * 6, [True] * 4 + [False] * 2])
    order = torch.tensor([[0.9, 0.1, 0.8, 0.3, 0.2, 0.7]] * 3)

    removed = topped_up(touched, order, 4)

    assert removed.sum(1).tolist() == [4, 4, 4]
    assert removed[0].tolist() == [True, True, True, False, True, False]
    assert removed[1].tolist() == [False, True, False, True, True, True]
    assert removed[2].tolist() == touched[2].tolist()


def test_a_hole_that_touches_too_many_tokens_is_left_out_whole() -> None:
    holes = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    touched = torch.tensor([[True] * 13 + [False] * 3, [True] * 12 + [False] * 4])

    kept = without_oversized(holes, touched, 12)

    assert not kept[0].any()
    assert kept[1].all()


def test_the_mae_loss_counts_missing_pixels_of_the_hole_and_whole_tokens_elsewhere(model: MiniModel) -> None:
    side, patch = MODELS["tiny"].mae.image_size, MODELS["tiny"].mae.patch_size
    pictures = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    holes = torch.zeros(1, 1, side, side, dtype=torch.bool)
    holes[..., 2:11, 3:14] = True
    order = torch.rand(1, (side // patch) ** 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss = float(MaeObjective(model.mae)(pictures=pictures, holes=holes, order=order)["loss"])
        predicted_tokens = model.mae(pictures, holes, _removed(holes, order, patch))

    # By hand: which pixels count, and the squared error of the normalised picture there.
    touched = _touched(holes, patch)
    extra = _removed(holes, order, patch) & ~touched.flatten()[None]
    whole_tokens = torch.kron(extra.view(touched.shape).int(), torch.ones(patch, patch, dtype=torch.int)).bool()
    counts = (holes[0, 0] | whole_tokens).expand(3, -1, -1)
    normal = (pictures - model.mae.mean) / model.mae.std
    expected = float((model.mae.unpatchify(predicted_tokens) - normal)[0][counts].square().mean())
    assert loss == pytest.approx(expected, rel=1e-4)


def _touched(holes: Tensor, patch: int) -> Tensor:
    return holes[0, 0].unfold(0, patch, patch).unfold(1, patch, patch).flatten(2).any(2)


def _removed(holes: Tensor, order: Tensor, patch: int) -> Tensor:
    return topped_up(_touched(holes, patch).flatten()[None], order, 12)


# --- autoencoder -----------------------------------------------------------------------------------------------------


def test_the_plain_share_of_a_batch_never_sees_the_known_pixels(model: MiniModel) -> None:
    objective = VaeObjective(model, None, vae.PRESETS["tiny"])
    pictures = torch.rand(4, 3, 32, 32)
    noise = torch.zeros(4, 4, 4, 4)
    nothing, everything = torch.zeros(4, 1, 32, 32, dtype=torch.bool), torch.ones(4, 1, 32, 32, dtype=torch.bool)

    with torch.no_grad():
        one = objective(pictures=pictures, holes=nothing, noise=noise, sharpen=torch.zeros(()))
        other = objective(pictures=pictures, holes=everything, noise=noise, sharpen=torch.zeros(()))

    assert float(one["plain_mse"]) == float(other["plain_mse"])
    assert float(one["l1"]) != float(other["l1"])


def test_a_critic_learns_beside_the_model_and_survives_a_restart(bench: Bench, tmp_path: Path) -> None:
    recipe = replace(vae.PRESETS["tiny"], adversarial=0.1)
    straight, paused = tmp_path / "straight", tmp_path / "paused"
    train(vae.VaeStage(recipe, bench), assemble(straight, "tiny", []), straight)
    train(vae.VaeStage(recipe, bench), assemble(paused, "tiny", []), paused, pause_after=0)
    train(vae.VaeStage(recipe, bench), assemble(paused, "tiny", []), paused)

    lines = [json.loads(line) for line in (straight / "vae" / LOG).read_text().splitlines()]
    # A hinge critic that has seen nothing yet says about 0 to both: (1 + 1) / 2.
    assert lines[0]["critic"] == pytest.approx(1, abs=0.3)
    assert all(name.startswith("vae.") for name in weights_of(straight / "vae"))
    assert "critic" in (paused / "vae" / LOG).read_text()


def test_finishing_the_autoencoder_gives_unit_latents_that_decode_as_before(bench: Bench, model: MiniModel) -> None:
    stage = vae.VaeStage(vae.PRESETS["tiny"], bench)
    pictures, _ = bench.supply.shown(4, 64)
    with torch.no_grad():
        before = model.decode_plain(model.encode(pictures))
        stage.finish(model)
        rng = np.random.default_rng(0)
        latents = torch.cat([model.encode(bench.supply.pictures(rng, 16, 64, smallest=64)) for _ in range(8)])
        after = model.decode_plain(model.encode(pictures))

    assert latents.mean((0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.1)
    assert latents.std((0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.1)
    assert torch.allclose(after, before, atol=1e-4)


# --- backbone and alignment ------------------------------------------------------------------------------------------


def test_as_many_samples_as_asked_are_shown_where_sampling_starts(bench: Bench) -> None:
    def times(share: float) -> Tensor:
        recipe = replace(backbone.PRESETS["tiny"], at_start=share)
        return draw_scenes(bench, moment(), 400, recipe)["time"]

    on_the_way, some, all_of_them = (times(share) for share in (0.0, 0.25, 1.0))

    assert (all_of_them == STEPS - 1).all()
    assert not (on_the_way == STEPS - 1).any()
    # 400 draws of 1/4: 100, within five standard deviations of 8.7; the others are as they were.
    assert int((some == STEPS - 1).sum()) == pytest.approx(100, abs=43)
    assert torch.equal(some[some != STEPS - 1], on_the_way[some != STEPS - 1])


def diffusion_batch(bench: Bench) -> dict[str, Tensor]:
    return backbone.BackboneStage(backbone.PRESETS["tiny"], bench).batch(moment())


def test_a_dropped_condition_gives_the_null_tokens_all_the_blame(bench: Bench, model: MiniModel) -> None:
    batch = diffusion_batch(bench)
    objective = DiffusionObjective(model, outside=0.1)
    for dropped, learns in ((True, "null"), (False, "alignment")):
        model.zero_grad()
        objective(**{**batch, "dropped": torch.full_like(batch["dropped"], dropped)})["loss"].backward()
        blamed = {
            "null": model.null_condition.grad is not None and bool(model.null_condition.grad.any()),
            "alignment": any(p.grad is not None and bool(p.grad.any()) for p in model.alignment.parameters()),
        }
        assert [name for name, found in blamed.items() if found] == [learns]


def test_a_misaligned_sample_has_the_prior_of_the_whole_picture(bench: Bench, model: MiniModel) -> None:
    batch = diffusion_batch(bench)
    objective = DiffusionObjective(model, outside=0.1)
    nobody = torch.zeros_like(batch["dropped"])
    with torch.no_grad():
        trick = objective(**{**batch, "dropped": nobody, "misaligned": ~nobody})["loss"]
        # The same by hand: an MAE that never sees the hole, and a start from what it imagines when it does.
        prior = model.mae.reconstructed_prior(batch["pictures"])
        filled = model.mae.imagine(batch["pictures"], batch["holes"]).filled
        known = model.encode_known(batch["pictures"], batch["holes"], filled)
        clean = model.encode(batch["pictures"])
        start = 0.9 * known + 0.1 * batch["noise"]
        share = (batch["time"] / 1000).view(-1, 1, 1, 1)
        noisy = (1 - share) * clean + share * start
        cells = model.cells(batch["holes"])
        predicted = model.predict(noisy, batch["time"], cells, known, model.alignment(prior))
        weight = torch.where(cells > 0, 1.0, 0.1).expand_as(predicted)
        error = (predicted - (start - clean)).square()
        expected = (error * weight).sum() / weight.sum()

    assert float(trick) == pytest.approx(float(expected), rel=1e-4)


def test_a_dropped_sample_starts_from_the_smoothest_fill_and_another_from_the_imagined_picture(
    model: MiniModel,
) -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    holes = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    holes[..., 8:40, 16:48] = True
    with torch.no_grad():
        torch.nn.init.normal_(model.mae.decoder_pred.bias)
        prior, known = told(model, pictures, holes, torch.tensor([True, False]))
        smooth = model.encode_known(pictures, holes)
        imagined = model.encode_known(pictures, holes, model.mae.imagine(pictures, holes).filled)

    assert torch.allclose(prior, model.mae.prior(pictures, holes), atol=1e-5)
    assert torch.allclose(known[0], smooth[0], atol=1e-5)
    assert torch.allclose(known[1], imagined[1], atol=1e-5)
    assert not torch.allclose(smooth[1], imagined[1], atol=1e-3)


def test_pictures_grow_when_the_schedule_says_so_and_batches_shrink_with_them() -> None:
    growth = Growth(128, 256, since=0.6)

    assert growth.sides == {128, 256}
    assert growth.now(0.59, 8) == (128, 8)
    assert growth.now(0.6, 8) == (256, 4)
    assert Growth(64).now(1.0, 8) == (64, 8)


def test_about_the_asked_share_of_conditions_is_dropped(bench: Bench) -> None:
    recipe = replace(backbone.PRESETS["tiny"], dropped=0.25)
    stage = backbone.BackboneStage(replace(recipe, pace=replace(recipe.pace, batch=8)), bench)
    dropped = torch.cat([stage.batch(moment(step))["dropped"] for step in range(50)])

    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.06)


def test_the_misalignment_decays_in_a_straight_line_and_stays() -> None:
    recipe = replace(alignment.PRESETS["tiny"], first=1.0, last=0.1, decay=2000)

    assert misaligned_share(0, recipe) == 1.0
    assert misaligned_share(1000, recipe) == pytest.approx(0.55)
    assert misaligned_share(2000, recipe) == pytest.approx(0.1)
    assert misaligned_share(9000, recipe) == pytest.approx(0.1)


# --- decoder ---------------------------------------------------------------------------------------------------------


def test_the_decoder_is_asked_for_the_original_from_a_recoloured_picture(bench: Bench) -> None:
    stage = decoder.DecoderStage(decoder.PRESETS["tiny"], bench)
    batch = stage.batch(moment())

    assert not torch.allclose(batch["recoloured"], batch["pictures"], atol=0.01)
    assert (batch["time"] >= 600).all()
    assert (batch["time"] < 1000).all()


def test_the_plain_share_is_decoded_from_true_latents_whatever_the_colours(bench: Bench, model: MiniModel) -> None:
    recipe = replace(decoder.PRESETS["tiny"], plain=0.5)
    objective = decoder.HarmonyObjective(model, None, recipe)
    batch = decoder.DecoderStage(decoder.PRESETS["tiny"], bench).batch(moment())
    batch["holes"] = torch.ones_like(batch["holes"])
    with torch.no_grad():
        losses = objective(**batch)
        again = objective(**{**batch, "recoloured": torch.zeros_like(batch["recoloured"])})
        # By hand: a plain round trip of the first half (this random decoder stays inside [0, 1]).
        trip = model.decode_plain(model.encode(batch["pictures"][:4]))

    assert float(losses["plain_mse"]) == float(again["plain_mse"])
    assert float(losses["plain_mse"]) == pytest.approx(float((trip - batch["pictures"][:4]).square().mean()), rel=1e-4)


def test_the_decoder_learns_from_what_the_family_draws_step_by_step_from_its_start(
    model: MiniModel,
) -> None:
    objective = decoder.HarmonyObjective(model, None, decoder.PRESETS["tiny"])
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    holes = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    holes[..., 8:40, 16:48] = True
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        drawn, first = objective.draw(pictures, holes, noise, steps=2)
        # By hand: two Euler steps along the velocity that the UNet tells.
        prior, _, filled = model.mae.imagine(pictures, holes)
        known, condition = model.encode_known(pictures, holes, filled), model.alignment(prior)
        latents = 0.9 * known + 0.1 * noise
        for time in (999.0, 500.0):
            velocity = model.predict(latents, torch.full((2,), time), model.cells(holes), known, condition)
            clean, start = latents - time / 1000 * velocity, latents + (1 - time / 1000) * velocity
            latents = (clean + start) / 2 if time > 500 else clean

    assert torch.allclose(drawn, latents, atol=1e-4)
    assert torch.allclose(first, filled, atol=1e-5)


def test_no_picture_under_the_hole_reaches_the_decoder(bench: Bench, model: MiniModel) -> None:
    """A blending decoder reads what it is given there; the losses may see the truth, the decoder may not."""
    seen: list[Tensor] = []

    def listen(_: nn.Module, given: tuple[Tensor | None, ...]) -> None:
        seen.extend(picture for picture in given[1:2] if picture is not None)

    model.vae.get_submodule("decoder").register_forward_pre_hook(listen)
    objectives: dict[StageName, nn.Module] = {
        "vae": VaeObjective(model, None, vae.PRESETS["tiny"]),
        "decoder": decoder.HarmonyObjective(model, None, decoder.PRESETS["tiny"]),
    }
    for name, objective in objectives.items():
        batch = {**STAGES[name]("tiny", bench).batch(moment())}
        batch["pictures"] = torch.where(batch["holes"], torch.rand(1), batch["pictures"])
        truths = batch["pictures"] * 2 - 1
        seen.clear()
        with torch.no_grad():
            objective(**batch)
        given = seen[0]
        holes, truths = batch["holes"][-len(given) :], truths[-len(given) :]
        assert torch.allclose(given.masked_select(~holes), truths.masked_select(~holes), atol=1e-5)
        assert (given - truths).abs().masked_select(holes).mean() > 0.1, name


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_takes_its_own_picture_to_heart(name: StageName, bench: Bench, tmp_path: Path) -> None:
    stage = STAGES[name]("tiny", bench)
    model = assemble(tmp_path, "tiny", [])
    objective = stage.objective(model)
    learning = [value for key, value in model.named_parameters() if key.startswith(stage.trains)]
    batch = stage.batch(moment())
    grain = torch.rand(batch["pictures"].shape, generator=torch.Generator().manual_seed(1))
    # The drawn pictures are so smooth that an untrained auto-encoder's first fill is already right.
    batch = {**batch, "pictures": (batch["pictures"] + grain) / 2}
    optimizer = torch.optim.Adam(learning, lr=3e-3)
    losses: list[float] = []
    for _ in range(25):
        loss = objective(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("name", list(STAGES))
def test_the_same_step_always_draws_the_same_batch_and_another_another(name: StageName, bench: Bench) -> None:
    stage = STAGES[name]("tiny", bench)
    first, again, next_one = (stage.batch(moment(step)) for step in (3, 3, 4))

    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["pictures"], next_one["pictures"])


def test_every_recipe_can_be_written_down() -> None:
    for module in (vae, mae, backbone, alignment, decoder):
        assert set(module.PRESETS) == {"gpu", "cpu", "tiny"}
        assert all(asdict(recipe)["pace"]["steps"] > 0 for recipe in module.PRESETS.values())
