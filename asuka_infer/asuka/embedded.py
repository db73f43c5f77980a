"""The embedded family as inpainting methods on one set of weights: asuka-mini, the three sd-mini and mae-mini."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from asuka_infer.asuka.embedded_files import embedded_folder
from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mini import LoadedMini, MiniModel, load_mini
from asuka_infer.asuka.prompts import read_prompt
from asuka_infer.asuka.repaint import NoiseStream, repaint, resampling_path
from asuka_infer.asuka.scene import Scene, prior_view
from asuka_infer.asuka.schedule import STEPS, Solver
from asuka_infer.asuka.texture import continue_texture
from asuka_infer.compositing import exact
from asuka_infer.geometry import Fit
from asuka_infer.holes import resize
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import SILENT, Watch
from asuka_infer.noise import noise_for_seeds
from asuka_infer.prior_choice import PriorSettings, prior_pixels
from asuka_infer.request import InpaintRequest, InpaintResult, RgbImage
from asuka_infer.settings import Settings, WorkingSize, change, choice, number, whole
from asuka_infer.weighted import file_sha256

DEFAULT_STEPS = 1
"""Sampling starts from a first fill with little noise, and one step serves every family member best (measured)."""

TEXTURE = 0.75
"""Our choice (docs/decisions/0020): more looks sharper and repeats itself, .5 measures as well and looks double."""

REPAINT_STEPS, REPAINT_JUMP, REPAINT_REPEATS = 20, 5, 2
"""35 UNet calls, our choice for a CPU: RePaint's own 250, 10 and 10 are 2,410 calls."""


@dataclass(frozen=True)
class AsukaMiniSettings(PriorSettings):
    """What can be turned on `asuka-mini`; what its auto-encoder sees among it."""

    steps: int = whole(DEFAULT_STEPS, lowest=1, highest=100, meaning="Denoising steps; more is slower, rarely better.")
    solver: str = choice("dpm++", options=("dpm++", "unipc"), meaning="The second-order solver that takes the steps.")
    guidance: float = number(
        1.0, lowest=1.0, highest=10.0, meaning="How far to go beyond the prior, away from no condition; 1 is none."
    )
    texture: float = number(
        TEXTURE, lowest=0.0, highest=1.0, meaning="How much of the photo's own texture goes on in the hole; 0 is none."
    )


@dataclass(frozen=True)
class SdMiniSettings(Settings):
    """What can be turned on `sd-mini`."""

    steps: int = whole(DEFAULT_STEPS, lowest=1, highest=100, meaning="Denoising steps; more is slower, rarely better.")
    solver: str = choice("dpm++", options=("dpm++", "unipc"), meaning="The second-order solver that takes the steps.")


@dataclass(frozen=True)
class RepaintMiniSettings(Settings):
    """What can be turned on `sd-mini-repaint`."""

    steps: int = whole(REPAINT_STEPS, lowest=1, highest=250, meaning="Noise levels from noise to picture.")
    jump_length: int = whole(REPAINT_JUMP, lowest=1, highest=50, meaning="Levels gone up again at each jump.")
    repeats: int = whole(REPAINT_REPEATS, lowest=1, highest=20, meaning="How often each stretch is gone down in all.")


@dataclass(frozen=True)
class MaeMiniSettings(Settings):
    """`mae-mini` has nothing to turn."""


@dataclass(frozen=True, eq=False)
class Filled:
    """What a family member makes of a scene.

    Attributes:
        image: RGB in [0, 1]; outside the hole it is whatever the decoder says.
        previews: named pictures of the same size or the auto-encoder's.
    """

    image: Float[Tensor, "batch 3 side side"]
    previews: Mapping[str, Float[Tensor, "batch 3 any any"]]


S = TypeVar("S", bound=Settings)

Fill = Callable[[MiniModel, Scene, list[int], S, Watch], Filled]
"""A family member: (model, scene, one seed per picture, settings, watch) -> filled pictures."""


@dataclass(frozen=True, eq=False)
class Embedded(Generic[S]):
    """An `Inpainter` made of a family member, the loaded weights and settings."""

    fill: Fill[S]
    loaded: LoadedMini
    settings: S

    @property
    def working_size(self) -> WorkingSize:
        """Squares of the side it was trained on.

        Where the picture has none around the hole, what a crop lacks is given to the model as missing (`_scene`),
        which it knows from training, and not as repeated edges, which it does not.
        """
        side = self.loaded.model.config.pixels
        return WorkingSize(largest=side, smallest=side, square=True)

    @property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 by weight file."""
        return self.loaded.files

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """Fill the hole; pictures of any size are brought to the model's square and back."""
        side = self.loaded.model.config.pixels
        fit = Fit.inside(request.size, (side, side))
        scene = _scene(request, fit)
        with torch.inference_mode():
            filled = self.fill(self.loaded.model, scene, [request.seed], self.settings, _Unfitted(watch, fit))
        picture = fit.undo(_pixels(filled.image[0]))
        previews = {name: _whole_preview(shown[0], fit) for name, shown in filled.previews.items()}
        return InpaintResult(exact(request.image, picture, request.hole), MappingProxyType(previews))

    def prior_preview(self, request: InpaintRequest) -> Mapping[str, RgbImage]:
        """What the auto-encoder imagines under the present settings, before any step; empty for members without one."""
        if not isinstance(self.settings, AsukaMiniSettings):
            return {}
        side = self.loaded.model.config.pixels
        fit = Fit.inside(request.size, (side, side))
        with torch.inference_mode():
            seen, unseen = _prior_view(_scene(request, fit), self.settings)
            imagined = self.loaded.model.mae.reconstruct(seen, unseen)
        return {"prior": _whole_preview(imagined[0], fit)}

    def with_settings(self, **changes: Any) -> "Embedded[S]":
        """The same weights with some settings changed."""
        return replace(self, settings=change(self.settings, changes))


def asuka_mini(loaded: LoadedMini) -> Embedded[AsukaMiniSettings]:
    """ASUKA: the MAE prior as condition, the conditional decoder."""
    return Embedded(fill_asuka, loaded, AsukaMiniSettings())


def sd_mini(loaded: LoadedMini) -> Embedded[SdMiniSettings]:
    """The same UNet without ASUKA: the learned null condition, the plain decoder."""
    return Embedded(fill_sd, loaded, SdMiniSettings())


def sd_mini_prompt(loaded: LoadedMini, tokens: Path) -> Embedded[SdMiniSettings]:
    """`sd_mini` under tokens learned for all pictures alike (the paper's SD-prompt) instead of the null condition.

    Args:
        loaded: the weights.
        tokens: a file that `prompts.save_prompt` wrote.

    Raises:
        WeightsError: when it holds something else or does not fit the UNet.
    """
    learned = read_prompt(tokens, width=loaded.model.config.alignment.condition_width).to(loaded.model.unet.dtype)
    known = replace(loaded, files=MappingProxyType({**loaded.files, tokens.name: file_sha256(tokens)}))
    return Embedded(partial(_fill_prompt, tokens=learned), known, SdMiniSettings())


def sd_mini_repaint(loaded: LoadedMini) -> Embedded[RepaintMiniSettings]:
    """`sd_mini` sampled by RePaint: known latents put back at every step, steps repeated."""
    return Embedded(fill_repaint, loaded, RepaintMiniSettings())


def mae_mini(loaded: LoadedMini) -> Embedded[MaeMiniSettings]:
    """The blurry prior itself as a method."""
    return Embedded(fill_mae, loaded, MaeMiniSettings())


def load_embedded(folder: Path | None = None) -> LoadedMini:
    """The weights of a folder, once per process however many family members are loaded.

    None takes the committed ones, or those of the folder that `ASUKA_MINI_WEIGHTS` names.
    """
    return _load_once(folder or embedded_folder())


@cache
def _load_once(folder: Path) -> LoadedMini:
    return load_mini(folder)


def fill_asuka(model: MiniModel, scene: Scene, seeds: list[int], settings: AsukaMiniSettings, watch: Watch) -> Filled:
    """ASUKA on a batch, then the known texture continued along it; row k depends on picture k and seed k alone."""
    seen, unseen = _prior_view(scene, settings)
    idea = model.mae.imagine(seen, unseen)
    condition = model.alignment(idea.prior.to(model.alignment.dtype))
    # Another picture steers, but it is no fill to start from.
    filled = idea.filled if settings.prior == "photo" else None
    known = model.encode_known(scene.image, scene.hole, filled)
    latents = sample(
        model,
        scene,
        condition,
        seeds,
        steps=settings.steps,
        solver=settings.solver,
        guidance=settings.guidance,
        known=known,
        watch=watch,
    )
    drawn = model.decode_known(latents, scene.image, scene.hole, filled)
    if settings.texture > 0:
        drawn = continue_texture(scene.image, scene.hole, drawn, settings.texture).to(drawn)
    return Filled(drawn, {"prior": idea.picture})


def fill_sd(model: MiniModel, scene: Scene, seeds: list[int], settings: SdMiniSettings, watch: Watch) -> Filled:
    """The backbone alone on a batch."""
    condition = model.null(len(seeds))
    latents = sample(model, scene, condition, seeds, steps=settings.steps, solver=settings.solver, watch=watch)
    return Filled(model.decode_plain(latents), {})


def _fill_prompt(
    model: MiniModel, scene: Scene, seeds: list[int], settings: SdMiniSettings, watch: Watch, *, tokens: Tensor
) -> Filled:
    condition = tokens.expand(len(seeds), -1, -1)
    latents = sample(model, scene, condition, seeds, steps=settings.steps, solver=settings.solver, watch=watch)
    return Filled(model.decode_plain(latents), {})


def fill_repaint(
    model: MiniModel, scene: Scene, seeds: list[int], settings: RepaintMiniSettings, watch: Watch
) -> Filled:
    """RePaint on a batch, with the 9-channel UNet given hole and known latents as usual."""
    known, cells = model.encode_known(scene.image, scene.hole), model.cells(scene.hole)
    condition = model.null(len(seeds))

    def time_of(level: int) -> Tensor:
        # Level 0 is clean; the topmost is the last trained time, where flow has no signal left and v-prediction none.
        return torch.full((1,), min(level * STEPS / settings.steps, STEPS - 1.0))

    strength = model.config.strength

    def mix(level: int) -> tuple[float, float, float]:
        """Shares of clean latents and of the start, and the size of the two when the start's mean is taken away."""
        alpha, sigma = model.config.schedule.levels(time_of(level)) if level else (torch.ones(1), torch.zeros(1))
        return float(alpha), float(sigma), float((alpha**2 + (strength * sigma) ** 2).sqrt())

    def levels(level: int) -> tuple[float, float]:
        # RePaint needs noise of mean 0 and one end that is noise alone; so it is shown the latents less the first fill.
        alpha, sigma, size = mix(level)
        return alpha / size, strength * sigma / size

    def predict(latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
        time = time_of(level).expand(len(latents))
        _, sigma, size = mix(level)
        latents = size * latents + sigma * (1 - strength) * known
        predicted = model.predict(latents, time, cells, known, condition)
        clean, start = model.config.schedule.clean_and_noise(latents, predicted, time)
        watch.preview(partial(_preview, model, clean))
        return clean, (start - (1 - strength) * known) / strength

    latents = repaint(
        known,
        cells,
        path=resampling_path(settings.steps, settings.jump_length, settings.repeats),
        levels=levels,
        predict=predict,
        noise=NoiseStream(seeds, known.shape[1:]),
        watch=watch,
    )
    return Filled(model.decode_plain(latents), {})


def fill_mae(model: MiniModel, scene: Scene, seeds: list[int], settings: MaeMiniSettings, watch: Watch) -> Filled:
    """The auto-encoder's picture on a batch; it draws nothing, so seeds change nothing."""
    del seeds, settings
    filled = model.mae.imagine(scene.image, scene.hole).filled
    watch.step(1, 1)
    return Filled(filled, {})


def sample(
    model: Family,
    scene: Scene,
    condition: Float[Tensor, "batch tokens width"],
    seeds: list[int],
    *,
    steps: int,
    solver: Solver | str = "dpm++",
    guidance: float = 1.0,
    known: Float[Tensor, "batch channels h w"] | None = None,
    watch: Watch = SILENT,
) -> Float[Tensor, "batch channels h w"]:
    """Latents for a batch of scenes under a condition; row k depends on row k and seed k alone.

    `known` are the latents of the first-filled scenes, where that fill is not to be the smoothest one.
    """
    known = model.encode_known(scene.image, scene.hole) if known is None else known
    cells = model.cells(scene.hole)
    scheduler = model.config.schedule.solver(steps, "unipc" if solver == "unipc" else "dpm++")
    noise = noise_for_seeds(seeds, tuple(known.shape[1:])).to(known.device, torch.float32)
    latents = model.start(known.float(), noise)
    null = model.null(len(seeds))
    for done, time in enumerate(scheduler.timesteps, start=1):
        times = time.to(known.device, torch.float32).expand(len(latents))
        predicted = model.predict(latents, times, cells, known, condition)
        if guidance > 1:
            without = model.predict(latents, times, cells, known, null)
            predicted = without + guidance * (predicted - without)
        clean, _ = model.config.schedule.clean_and_noise(latents, predicted, times)
        latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
        watch.preview(partial(_preview, model, clean))
        watch.step(done, steps)
    return latents


@dataclass(frozen=True, eq=False)
class _Unfitted:
    """Shows the caller's watch previews without the model's padding."""

    watch: Watch
    fit: Fit

    def step(self, done: int, total: int) -> None:
        self.watch.step(done, total)

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.watch.preview(lambda: self.fit.undo(picture()))


def _prior_view(scene: Scene, settings: AsukaMiniSettings) -> tuple[Tensor, Tensor]:
    """What the auto-encoder sees, (pictures, holes): the scene, or what the settings put in its place, seen whole."""
    other = prior_pixels(settings, scene.image.shape[-1])
    return prior_view(scene, None if other is None else torch.from_numpy(to_float(other))[None])


def _scene(request: InpaintRequest, fit: Fit) -> Scene:
    """The request in the model's square; what the picture does not reach is unknown, so it is hole."""
    image, hole = fit.apply(request.image, request.hole)
    hole[fit.scaled[0] :, :] = True
    hole[:, fit.scaled[1] :] = True
    if hole.all():
        # The known pixels are specks too fine for the model's grid: a cell with a speck must do.
        hole[: fit.scaled[0], : fit.scaled[1]] = ~resize(~request.hole, fit.scaled)
    pixels = torch.from_numpy(to_float(image))[None]
    missing = torch.from_numpy(hole)[None, None]
    return Scene(torch.where(missing, 0.5, pixels), missing)


def _pixels(image: Float[Tensor, "3 height width"]) -> RgbImage:
    return to_uint8(image.float().cpu().numpy())


def _preview(model: Family, clean: Float[Tensor, "batch channels h w"]) -> RgbImage:
    return _pixels(model.decode_plain(clean)[0])


def _whole_preview(shown: Float[Tensor, "3 side side"], fit: Fit) -> RgbImage:
    """A square preview without its padding, at its own resolution."""
    share = (fit.scaled[0] / fit.target[0], fit.scaled[1] / fit.target[1])
    height, width = (max(1, round(side * part)) for side, part in zip(shown.shape[1:], share, strict=True))
    return _pixels(shown[:, :height, :width])
