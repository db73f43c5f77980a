"""The paper's ablations at small scale (Table 2 a, b, d): one part of the family at a time, trained and measured.

Every row goes on from the same exported weights, sees the same photographs, holes and noise, and takes the same number
of steps as the other rows of its table; what its name says is all that differs.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.alignment import AlignmentKind
from asuka_infer.asuka.embedded import AsukaMiniSettings, Embedded, Filled, fill_asuka, sample
from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mini import LoadedMini, MiniModel, load_mini
from asuka_infer.asuka.scene import Scene
from asuka_infer.inpainter import Inpainter, Watch
from asuka_infer.metrics.features import SqueezeNet, pooled_features
from training import alignment, decoder, mae
from training.chain import MODEL_SEED
from training.colour import Jitter
from training.decoder import DecoderRecipe, DecoderStage, appearance_losses
from training.loop import Moment, Pace, Stage, TrainingError, put_weights, read_state, train, weights_of
from training.mae import MaeStage
from training.measure import Case, fill_with, measure, write_sheet, write_table
from training.presets import Bench, Perceptual, Preset
from training.vae import decode

Part = Literal["mae", "alignment", "decoder"]

STEPS: Mapping[Preset, Mapping[Part, int]] = {
    "gpu": {"mae": 3000, "alignment": 1500, "decoder": 3000},
    "cpu": {"mae": 100, "alignment": 40, "decoder": 50},
    "tiny": {"mae": 2, "alignment": 2, "decoder": 2},
}
"""Of every training stage of every row of a table: on a share of a core, what fits into an hour and a half in all."""

TABLES: Mapping[Part, str] = {
    "mae": "a. The prior's auto-encoder",
    "alignment": "b. The alignment",
    "decoder": "d. The decoder",
}

SHOWN = ("perceptual", "kernel", "hole_l1", "colour_step")
"""Columns of our table; the first two stand where the paper has LPIPS and FID. Smaller is better in all."""

HEADS = (
    *("row", "paper: LPIPS, FID, U-IDS, P-IDS", "perceptual", "kernel", "hole L1", "colour step"),
    *("ASUKA's minus this row: perceptual", "kernel", "as the paper says"),
)


@dataclass(frozen=True)
class Row:
    """One row of the paper's Table 2.

    Attributes:
        part: which of its tables: what alone differs between the rows of one.
        key: the row's folder.
        title: the paper's name and ours.
        paper: LPIPS, FID, U-IDS, P-IDS as the paper prints them.
        kind: of the alignment, in its table.
    """

    part: Part
    key: str
    title: str
    paper: tuple[str, str, str, str]
    kind: AlignmentKind = "self"


ROWS = (
    Row("mae", "mae-pretrained", "p.t.: random tokens alone", ("0.151", "11.513", "0.354", "0.258")),
    Row("mae", "mae-finetuned", "f.t.: inpainting holes", ("0.150", "11.460", "0.368", "0.256")),
    Row("alignment", "align-linear", "linear", ("0.155", "11.934", "0.361", "0.227"), "linear"),
    Row("alignment", "align-attn", "attn", ("0.152", "11.613", "0.362", "0.234"), "attn"),
    Row("alignment", "align-cross", "cross x4", ("0.152", "11.762", "0.368", "0.238"), "cross"),
    Row("alignment", "align-self", "ASUKA: self x4", ("0.150", "11.460", "0.368", "0.256")),
    Row("decoder", "decoder-plain", "VAE: latents alone", ("0.156", "11.949", "0.343", "0.208")),
    Row("decoder", "decoder-cond", "+ cond.: known pixels", ("0.151", "11.634", "0.361", "0.231")),
    Row("decoder", "decoder-colour", "+ color: recoloured latents", ("0.152", "11.603", "0.357", "0.229")),
    Row("decoder", "decoder-latent", "Ours: + one-step latents", ("0.150", "11.460", "0.368", "0.256")),
)
"""In the paper's order; the last row of each table is what ASUKA does."""

FRESH: Mapping[Part, tuple[str, ...]] = {
    "mae": (*MaeStage.trains, *alignment.AlignmentStage.trains),
    "alignment": alignment.AlignmentStage.trains,
    "decoder": DecoderStage.trains,
}
"""What a table's rows learn from the beginning, by the beginnings of the parameters' names."""

FRESH_PEAK = 1e-3
"""Learning rate of an alignment that begins at random and has few steps."""

STILL = Jitter(0.0, 0.0, 0.0, 0.0)
"""No recolouring."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What all rows share.

    Attributes:
        weights: a folder that `export` wrote; every row begins with it.
        bench: photographs and holes.
        run: one folder per row.
        preset: of the weights.
        steps: of every training stage of every row; None takes the preset's.
        vae: a chain's `vae` stage (RUN/vae), whose decoder the decoder's rows begin with; None begins at random.
    """

    weights: Path
    bench: Bench
    run: Path
    preset: Preset
    steps: int | None = None
    vae: Path | None = None

    def short(self, pace: Pace, part: Part) -> Pace:
        """The pace of a stage, cut to the length that rows of that table have."""
        steps = self.steps or STEPS[self.preset][part]
        average, often = min(pace.average, 0.98), min(2.0, pace.minutes_between_checkpoints)
        warm_up, window = min(pace.warm_up, max(1, steps // 5)), min(pace.log_every, steps)
        return replace(
            pace,
            steps=steps,
            warm_up=warm_up,
            average=average,
            log_every=window,
            minutes_between_checkpoints=often,
        )


class PretrainingStage(MaeStage):
    """As MAE is trained: tokens removed at random, no hole. It draws the same photographs as the stage with holes."""

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """A batch of the stage with holes, less the holes."""
        batch = super().batch(moment)
        return {**batch, "holes": torch.zeros_like(batch["holes"]), "bare": torch.tensor(False)}  # noqa: FBT003


class PlainStage(DecoderStage):
    """The decoder of Stable Diffusion: it sees latents and no known pixels. Draws and losses are the other rows'."""

    def objective(self, model: Family) -> nn.Module:
        """See `PlainObjective`."""
        return PlainObjective(model, self._bench.perceptual, self._settings)


class PlainObjective(nn.Module):
    """The original picture from its own latents; the losses of `HarmonyObjective`."""

    def __init__(self, model: Family, perceptual: Perceptual | None, recipe: DecoderRecipe) -> None:
        super().__init__()
        self.model, self.perceptual, self._recipe = model, perceptual, recipe

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        **unused: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of one batch; what the other rows corrupt latents with is drawn alike and left unused."""
        del unused
        with torch.no_grad():
            latents = self.model.encode(pictures)
        result = (decode(self.model.vae, latents) / 2 + 0.5).float()
        shown = torch.where(holes, result, pictures)
        return appearance_losses(
            result, shown, pictures, holes, plain=0, perceptual=self.perceptual, recipe=self._recipe
        )


def train_rows(setup: Setup) -> bool:
    """Train what is not complete of all rows, in their order; returns whether all are. A stop is at once a pause.

    Raises:
        TrainingError: when the weights have other sizes than the preset.
    """
    return all(trained(row, setup) is not None for row in ROWS)


def trained(row: Row, setup: Setup) -> MiniModel | None:
    """The row's model after training what was missing; None where that was interrupted.

    Raises:
        TrainingError: when the weights have other sizes than the preset.
    """
    model = beginning(row, setup)
    for folder, stage in stages_of(row, setup):
        if not read_state(folder / stage.name).complete and not train(stage, model, folder):
            return None
        put_weights(model, weights_of(folder / stage.name), folder / stage.name)
    return model.eval().requires_grad_(requires_grad=False)


def beginning(row: Row, setup: Setup) -> MiniModel:
    """The exported weights with fresh ones in the part that the row is about; alike in all rows of a table.

    Raises:
        TrainingError: when the weights have other sizes than the preset.
    """
    kept = _exported(setup.weights)
    if kept.config != setup.bench.model:
        raise TrainingError(f"{setup.weights} has other sizes than the preset {setup.preset!r}; use the one it is of.")
    torch.manual_seed(MODEL_SEED)
    model = MiniModel(replace(kept.config, alignment=replace(kept.config.alignment, kind=row.kind)))
    old = {name: value for name, value in kept.named_parameters() if not name.startswith(FRESH[row.part])}
    put_weights(model, old, setup.weights)
    if row.part == "decoder" and setup.vae is not None:
        first = {name: value for name, value in weights_of(setup.vae).items() if name.startswith(FRESH["decoder"])}
        put_weights(model, first, setup.vae)
    return model


@cache
def _exported(folder: Path) -> MiniModel:
    return load_mini(folder).model


def stages_of(row: Row, setup: Setup) -> list[tuple[Path, Stage[MiniModel]]]:
    """What trains a row, one after the other, and the folder of each."""
    folder, bench = setup.run / row.key, setup.bench
    if row.part == "decoder":
        recipe = replace(
            decoder.PRESETS[setup.preset],
            pace=setup.short(decoder.PRESETS[setup.preset].pace, row.part),
            jitter=Jitter() if row.key in {"decoder-colour", "decoder-latent"} else STILL,
            augmented=0.5 if row.key == "decoder-latent" else 0.0,
            # Latents that the family draws are this project's own addition; the paper's table has none.
            sampled=0.0,
        )
        return [(folder, (PlainStage if row.key == "decoder-plain" else DecoderStage)(recipe, bench))]
    align = alignment.PRESETS[setup.preset]
    aligning = alignment.AlignmentStage(
        replace(align, pace=setup.short(replace(align.pace, peak=FRESH_PEAK), row.part)), bench
    )
    if row.part == "alignment":
        return [(folder, aligning)]
    recipe = replace(mae.PRESETS[setup.preset], pace=setup.short(mae.PRESETS[setup.preset].pace, row.part))
    # Other photographs than in the beginning, the same in both rows.
    later = replace(recipe, pace=replace(recipe.pace, seed=recipe.pace.seed + 1))
    kind = PretrainingStage if row.key == "mae-pretrained" else MaeStage
    return [
        (setup.run / "mae-start", PretrainingStage(recipe, bench)),
        (folder, kind(later, bench)),
        (folder, aligning),
    ]


def write_ablations(setup: Setup, cases: Sequence[Case], network: SqueezeNet, out: Path) -> list[str]:
    """Fill the cases with every trained row and write `out/ablations.csv` and `.md`; returns the latter's lines.

    Every table also leaves all its numbers, its differences and a sheet in `out/<part>`.
    """
    truths = pooled_features([case.truth for case in cases], network)
    told: list[dict[str, str]] = []
    for part in TABLES:
        rows = [row for row in ROWS if row.part == part]
        files = {row.key: fill_with(row.key, partial(_method, row, setup), cases, setup.run / row.key) for row in rows}
        measured = {row.key: measure(cases, files[row.key], network) for row in reversed(rows)}
        folder = out / part
        folder.mkdir(parents=True, exist_ok=True)
        write_table(measured, truths, [case.photograph for case in cases], folder)
        write_sheet(cases, files, folder)
        told += _rows_of(rows, folder)
    with (out / "ablations.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(told[0]))
        writer.writeheader()
        writer.writerows(told)
    lines = markdown(told)
    (out / "ablations.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The rows of `ablations.csv` as one Markdown table per table of the paper."""
    lines: list[str] = []
    for part, title in TABLES.items():
        lines += [f"**{title}**", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
        lines += [
            f"| {row['row']} | {row['paper']} | {' | '.join(row[name] for name in SHOWN)} | {row['perceptual_gap']} "
            f"| {row['kernel_gap']} | {row['agrees']} |"
            for row in rows
            if row["table"] == part
        ]
        lines.append("")
    return lines[:-1]


def verdict(gap: str) -> str:
    """Whether a gap "point [low, high]" says what the paper says: that ASUKA's own row is better (smaller)."""
    low, high = (float(end) for end in gap[gap.index("[") + 1 : -1].split(","))
    if low <= 0 <= high:
        return "no difference seen"
    return "yes" if high < 0 else "no, the opposite"


def _rows_of(rows: Sequence[Row], folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        numbers = {line["method"]: line for line in csv.DictReader(file)}
    with (folder / "differences.csv").open(encoding="utf-8", newline="") as file:
        gaps = {line["against"]: line for line in csv.DictReader(file)}
    told: list[dict[str, str]] = []
    for row in rows:
        gap = gaps.get(row.key)
        told.append(
            {
                "table": row.part,
                "row": row.title,
                "paper": ", ".join(row.paper),
                **{name: numbers[row.key][name] for name in SHOWN},
                "perceptual_gap": gap["perceptual"] if gap else "",
                "kernel_gap": gap["kernel"] if gap else "",
                "agrees": verdict(gap["perceptual"]) if gap else "",
            }
        )
    return told


def _method(row: Row, setup: Setup) -> Inpainter:
    model = trained(row, setup)
    if model is None:
        raise TrainingError(f"The training of {row.key} was interrupted; the same command goes on from there.")
    loaded = LoadedMini(model)
    # Continued texture is not the paper's and would blur what the rows are to tell apart.
    settings = AsukaMiniSettings(texture=0.0)
    return Embedded(_fill_plainly if row.key == "decoder-plain" else fill_asuka, loaded, settings)


def _fill_plainly(
    model: MiniModel, scene: Scene, seeds: list[int], settings: AsukaMiniSettings, watch: Watch
) -> Filled:
    """`asuka-mini` with a decoder that sees latents alone."""
    idea = model.mae.imagine(scene.image, scene.hole)
    known = model.encode_known(scene.image, scene.hole, idea.filled)
    condition = model.alignment(idea.prior)
    latents = sample(model, scene, condition, seeds, steps=settings.steps, known=known, watch=watch)
    return Filled(model.decode_plain(latents), {})
