"""What ASUKA costs over stock diffusers inpainting on one backbone, at Stable Diffusion 1.5's size, weights random.

Run: .venv/bin/python benchmarks/asuka_overhead.py                                  (8 minutes on two quiet cores)
     .venv/bin/python benchmarks/asuka_overhead.py --precision bfloat16 --batch 4   (4 minutes where bfloat16 is native)

Fixed costs and the cost of one step are measured separately, with few steps, and added up to `--total` steps. The
pipelines take turns, so that a disturbance meets all of them; of every stage the shortest time counts. Device and
memory layout are what the application would choose here (`asuka_infer.placement`), the same for all. Processors that
multiply bfloat16 in matrices (AMX) do two guided rows in less than twice the time of one, so there the ratio to the
guided backbone says more about them than about ASUKA. On a machine that others use, `--clock processor` counts the time
that the cores worked for this process: a ratio of it is worth more than one of waiting.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: docs/decisions/0004
sys.path.insert(0, str(Path(__file__).parents[1]))

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.sd import AsukaInpaintPipeline
from asuka_infer.placement import (
    PRECISION_VARIABLE,
    Placement,
    accept_old_array_calls,
    choose_placement,
    quiet_libraries,
    settle,
)

STEPS = 2
"""Steps per run: each gives one measurement of a step, and a second one does not belong to the warm-up."""

GUIDANCE = 7.5
LIMIT_PLAIN, LIMIT_GUIDED = 1.06, 0.6
"""Of ASUKA over its backbone without and with guidance: this project's limits for the base-width decoder."""

MEMORY_MB = 5500
"""As the catalog reckons asuka-sd15."""

MOST_ROUNDS = 8

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Sizes:
    """Of the parts; what is not named has Stable Diffusion 1.5's size."""

    pixels: int = 512
    tokens: int = 77
    unet: dict[str, Any] = field(default_factory=lambda: {"sample_size": 64, "cross_attention_dim": 768})
    text: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "projection_dim": 768,
        }
    )  # fmt: skip
    levels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    wide_levels: tuple[int, ...] = (192, 384, 768, 768)
    wide_layers: int = 3
    groups: int = 32
    mae: dict[str, Any] = field(default_factory=dict[str, Any])
    alignment: dict[str, Any] = field(default_factory=dict[str, Any])


FULL = Sizes()
"""The wide decoder has the sizes of Zhu et al.'s published one for Stable Diffusion 1.5, 1.5 times as wide."""

TINY = Sizes(
    pixels=64,
    unet={
        "sample_size": 8, "cross_attention_dim": 32, "block_out_channels": (16, 32), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 2, "norm_num_groups": 8,
    },
    text={
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "projection_dim": 32,
    },
    levels=(16, 16, 32, 32),
    layers=1,
    wide_levels=(24, 24, 48, 48),
    wide_layers=1,
    groups=8,
    mae={
        "image_size": 64, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "decoder_width": 24,
        "decoder_depth": 2, "decoder_heads": 2, "prior_layer": 1,
    },
    alignment={"prior_width": 24, "condition_width": 32, "depth": 1},
)  # fmt: skip
"""To see that everything runs; the ratios at this size say nothing."""


class Stopwatch:
    """Seconds by stage of one run, and the moments at which its steps ended."""

    def __init__(self, device: str, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self.moments: list[float] = []
        self._gpu = device.startswith("cuda")

    def now(self) -> float:
        """The time when everything asked for is done."""
        if self._gpu:
            torch.cuda.synchronize()
        return self._clock()

    def around(self, owner: Any, name: str, stage: str) -> None:
        """From now on, time every call of a method; without a stage, note only when the first call begins."""
        call = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begun = self.now()
            if not stage and not self.moments:
                self.moments.append(begun)
            done = call(*arguments, **named)
            if stage:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + self.now() - begun
            return done

        setattr(owner, name, timed)

    def step(self, pipeline: object, index: int, moment: object, values: dict[str, Any]) -> dict[str, Any]:
        """For diffusers: a step is done."""
        del pipeline, index, moment
        self.moments.append(self.now())
        return values

    def take(self) -> tuple[dict[str, float], list[float]]:
        """Seconds by stage and of every step since the last call."""
        seconds, moments = self.seconds, self.moments
        self.seconds, self.moments = {}, []
        return seconds, [later - earlier for earlier, later in pairwise(moments)]


@dataclass
class Cost:
    """The shortest times seen of one pipeline, per picture, in seconds."""

    stages: dict[str, float] = field(default_factory=dict[str, float])
    step: float = float("inf")

    @property
    def fixed(self) -> float:
        """All that is done once."""
        return sum(self.stages.values())

    def total(self, steps: int) -> float:
        """One picture with so many steps."""
        return self.fixed + steps * self.step

    def learn(self, seconds: dict[str, float], steps: list[float], whole: float, pictures: int) -> None:
        """Keep what was shorter this time; what no stage accounts for is "rest"."""
        rest = whole - sum(seconds.values()) - sum(steps)
        for stage, spent in {**seconds, "rest": rest}.items():
            self.stages[stage] = min(self.stages.get(stage, float("inf")), spent / pictures)
        self.step = min(self.step, min(steps) / pictures)


class Bench:
    """The backbone, ASUKA on it, and one stopwatch on all of them."""

    def __init__(self, sizes: Sizes, placement: Placement, clock: Callable[[], float]) -> None:
        torch.manual_seed(0)
        self.sizes, self.placement = sizes, placement
        self.watch = Stopwatch(placement.device, clock)
        unet: Any = UNet2DConditionModel(in_channels=9, out_channels=4, **sizes.unet)
        stock, own = _plain_vae(sizes), _conditional_vae(sizes, sizes.levels, sizes.layers)
        self.wide: Any = _conditional_vae(sizes, sizes.wide_levels, sizes.wide_layers)
        text: Any = CLIPTextModel(CLIPTextConfig(**sizes.text))
        self.text = text.to(placement.device, placement.dtype).eval()
        scheduler: Any = DPMSolverMultistepScheduler
        noise: dict[str, Any] = {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "steps_offset": 1,
        }
        build: Any = StableDiffusionInpaintPipeline
        self.stock = self._placed(
            build(
                vae=stock, unet=unet, scheduler=scheduler(**noise), text_encoder=None, tokenizer=None,
                safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            )
        )  # fmt: skip
        self.asuka = self._placed(
            AsukaInpaintPipeline(
                vae=own, unet=unet, scheduler=scheduler(**noise), prior=MaskedAutoencoder(**sizes.mae),
                alignment=Alignment(**sizes.alignment),
            )
        )  # fmt: skip
        self.wide = self.wide.to(placement.device, placement.dtype, memory_format=torch.channels_last).eval()
        self._time_stages()

    def stock_run(self, pictures: int = 1, guidance: float = 1.0) -> None:
        """Stock inpainting under an empty text."""
        ids = torch.zeros(1, self.sizes.tokens, dtype=torch.long, device=self.placement.device)
        named = {"prompt_embeds": self._read(ids)}
        if guidance > 1:
            named["negative_prompt_embeds"] = self._read(ids)
        image, hole = self._scene(pictures)
        size = {"height": self.sizes.pixels, "width": self.sizes.pixels}
        named = {name: embeds.expand(pictures, -1, -1) for name, embeds in named.items()}
        self.stock(image=image, mask_image=hole, guidance_scale=guidance, **size, **named, **self._steps())

    def asuka_run(self, pictures: int = 1) -> None:
        """ASUKA."""
        self.asuka(*self._scene(pictures), **self._steps())

    def wide_decode(self) -> float:
        """Seconds of the wide decoder for one picture."""
        image, hole = (part.to(self.placement.device, self.placement.dtype) for part in self._scene(1))
        cells = self.sizes.pixels // 8
        latents = torch.randn(1, 4, cells, cells).to(image)
        begun = self.watch.now()
        with torch.no_grad():
            self.wide.decode(latents, image=image, mask=hole)
        return self.watch.now() - begun

    def measure(self, cost: Cost, run: Callable[[], None], pictures: int = 1) -> None:
        """Run once and learn from it."""
        self.watch.take()
        begun = self.watch.now()
        run()
        whole = self.watch.now() - begun
        seconds, steps = self.watch.take()
        cost.learn(seconds, steps, whole, pictures)

    def _placed(self, pipeline: Any) -> Any:
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        return settle(pipeline.to(dtype=self.placement.dtype), self.placement)

    def _time_stages(self) -> None:
        around = self.watch.around
        around(self.text, "forward", "text")
        around(self.stock.unet, "forward", "")  # both pipelines have this one
        for pipeline in (self.stock, self.asuka):
            around(pipeline.vae, "encode", "encode")
            around(pipeline.vae, "decode", "decode")
        around(self.asuka.prior, "prior", "prior")
        around(self.asuka.alignment, "forward", "align")

    def _scene(self, pictures: int) -> tuple[Tensor, Tensor]:
        """Noise with a centred hole of a quarter of its area."""
        side = self.sizes.pixels
        image = torch.rand(pictures, 3, side, side, generator=torch.Generator().manual_seed(1))
        hole = torch.zeros(pictures, 1, side, side)
        hole[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
        return image, hole

    def _read(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return self.text(ids)[0]

    def _steps(self) -> dict[str, Any]:
        return {
            "num_inference_steps": STEPS, "output_type": "pt", "callback_on_step_end": self.watch.step,
        }  # fmt: skip


def _plain_vae(sizes: Sizes) -> Any:
    build: Any = AutoencoderKL
    return build(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=sizes.levels, layers_per_block=sizes.layers, norm_num_groups=sizes.groups,
    )  # fmt: skip


def _conditional_vae(sizes: Sizes, levels: tuple[int, ...], layers: int) -> ConditionalAutoencoderKL:
    return ConditionalAutoencoderKL(
        down_block_out_channels=sizes.levels, layers_per_down_block=sizes.layers, up_block_out_channels=levels,
        layers_per_up_block=layers, norm_num_groups=sizes.groups,
    )  # fmt: skip


def compare(bench: Bench, seconds: float) -> tuple[dict[str, Cost], int]:
    """Let the pipelines take turns while another round fits in the time; costs by name, and the rounds."""
    costs = {name: Cost() for name in ("stock", "stock, guided", "ASUKA")}
    wide = float("inf")
    begun = last = time.perf_counter()
    longest, rounds = 0.0, 0
    while rounds < MOST_ROUNDS and (rounds < 2 or last - begun + longest < seconds):
        bench.measure(costs["stock"], bench.stock_run)
        bench.measure(costs["ASUKA"], bench.asuka_run)
        bench.measure(costs["stock, guided"], lambda: bench.stock_run(guidance=GUIDANCE))
        wide = min(wide, bench.wide_decode())
        rounds += 1
        last, before = time.perf_counter(), last
        longest = max(longest, last - before)
        print(f"round {rounds}: {last - before:.0f} s", file=sys.stderr, flush=True)
    own = costs["ASUKA"]
    costs["ASUKA, wide decoder"] = Cost({**own.stages, "decode": wide}, own.step)
    return costs, rounds


def throughput(bench: Bench, pictures: int, repeats: int) -> tuple[Cost, Cost]:
    """ASUKA's cost per picture in a batch, for one picture and for `pictures`."""
    single, together = Cost(), Cost()
    for _ in range(repeats):
        bench.measure(single, bench.asuka_run)
        bench.measure(together, lambda: bench.asuka_run(pictures), pictures)
    return single, together


def tell_costs(costs: dict[str, Cost], steps: int, *, judge: bool) -> None:
    """The stages and the sum, as a Markdown table, and the ratios beside their limits."""
    stages = list(dict.fromkeys(stage for cost in costs.values() for stage in cost.stages))
    print(f"\n| seconds | {' | '.join(costs)} |\n|---|{'---|' * len(costs)}")
    for stage in sorted(stages, key=("text", "prior", "align", "encode", "decode", "rest").index):
        print(f"| {stage} | {' | '.join(f'{cost.stages.get(stage, 0):.3f}' for cost in costs.values())} |")
    print(f"| **fixed** | {' | '.join(f'{cost.fixed:.3f}' for cost in costs.values())} |")
    print(f"| **one step** | {' | '.join(f'{cost.step:.3f}' for cost in costs.values())} |")
    print(f"| **{steps} steps** | {' | '.join(f'{cost.total(steps):.2f}' for cost in costs.values())} |\n")
    for name in ("ASUKA", "ASUKA, wide decoder"):
        for other, limit in (("stock", LIMIT_PLAIN), ("stock, guided", LIMIT_GUIDED)):
            ratio = costs[name].total(steps) / costs[other].total(steps)
            judged = judge and name == "ASUKA"
            verdict = f"limit {limit}: {'met' if ratio <= limit else 'MISSED'}" if judged else "no limit"
            print(f"{name} / {other} at {steps} steps: {ratio:.3f} ({verdict})")


def tell_throughput(single: Cost, together: Cost, pictures: int, steps: int) -> None:
    """Pictures per minute alone and in a batch."""
    alone, batched = single.total(steps), together.total(steps)
    print(
        f"\nbatch of {pictures}, per picture: fixed {together.fixed:.3f} s (alone {single.fixed:.3f}), "
        f"step {together.step:.3f} s (alone {single.step:.3f}); at {steps} steps {60 / batched:.2f} pictures a minute "
        f"against {60 / alone:.2f} in a loop: {alone / batched:.2f} times as many"
    )


def tell_environment(placement: Placement, sizes: Sizes) -> None:
    """What the figures depend on."""
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__} with {torch.get_num_threads()} threads, "
        f"diffusers {diffusers.__version__}; {placement.device}, {placement.dtype}, {sizes.pixels} px"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "full"), default="full")
    parser.add_argument("--precision", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--seconds", type=float, default=300, help="for the comparison; two rounds at least")
    parser.add_argument("--total", type=int, default=20, help="steps to add up to (default: 20)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at a time for the throughput; 1 leaves it out")
    said = parser.parse_args()
    os.environ[PRECISION_VARIABLE] = said.precision
    sizes = TINY if said.size == "tiny" else FULL
    placement = choose_placement(MEMORY_MB)
    accept_old_array_calls()
    quiet_libraries()
    tell_environment(placement, sizes)
    bench = Bench(sizes, placement, CLOCKS[said.clock])
    costs, rounds = compare(bench, said.seconds)
    print(f"{said.clock} time, shortest of {rounds} rounds of {STEPS} steps each, the pipelines taking turns")
    tell_costs(costs, said.total, judge=said.size == "full")
    if said.batch > 1:
        tell_throughput(*throughput(bench, said.batch, repeats=2), said.batch, said.total)


if __name__ == "__main__":
    main()
