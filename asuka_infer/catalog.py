"""Every method there is: what it is, what it needs, whether it is ready here, and how to load it.

Importing this costs nothing: a loader imports its method when it is called.
"""

import difflib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from asuka_infer.asuka.embedded_files import FOLDER_VARIABLE, MANIFEST, embedded_folder, prompt_of
from asuka_infer.inpainter import Inpainter
from asuka_infer.weight_sources import WeightsNotHereError, WeightSource, locate, locate_file, what_is_missing


class UnknownMethodError(LookupError):
    """A key that no method has; the message names the nearest ones."""

    def __str__(self) -> str:
        """The sentence alone (LookupError's children are apt to show it in quotes)."""
        return str(self.args[0])


@dataclass(frozen=True)
class Needs:
    """What a machine must offer.

    Attributes:
        gpu: whether the method is bearable only with one.
        download_mb: weights to fetch on first use, in megabytes.
        memory_mb: peak memory in megabytes at the method's own working size, measured for methods that are ready
            everywhere, reckoned from weights and activations for the others; 0 = below 100.
        packages: what must be installed beyond requirements.txt.
    """

    gpu: bool = False
    download_mb: int = 0
    memory_mb: int = 0
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """Whether a method can run here and now; if not, `how_to` says in one sentence what makes it ready."""

    ready: bool
    how_to: str = ""


READY = Readiness(ready=True)


def always_ready() -> Readiness:
    """The readiness of methods that need nothing but what is installed."""
    return READY


@dataclass(frozen=True)
class Method:
    """One way to inpaint.

    Attributes:
        key: its permanent name on command lines, in records, folders and studies.
        title: its name for people.
        summary: one sentence for somebody choosing.
        citation: the paper it comes from.
        licence: of the code and the weights that run.
        needs: what a machine must offer.
        load: imports what it needs and returns the method ready to run; may take long and raise if not `ready`.
        readiness: looks whether it could run here, in milliseconds, without loading or downloading anything.
        sources: the weights it needs, as `fetch` gets them.
        shares: methods with the same word hold one copy of their weights together.
    """

    key: str
    title: str
    summary: str
    citation: str
    licence: str
    load: Callable[[], Inpainter]
    needs: Needs = Needs()
    readiness: Callable[[], Readiness] = always_ready
    sources: tuple[WeightSource, ...] = ()
    shares: str = ""


def _load_telea() -> Inpainter:
    from asuka_infer.baselines.telea import telea  # noqa: PLC0415 - loaders import lazily (architecture.md)

    return telea()


def _load_navier_stokes() -> Inpainter:
    from asuka_infer.baselines.navier_stokes import navier_stokes  # noqa: PLC0415 - loaders import lazily

    return navier_stokes()


def _load_shift_map() -> Inpainter:
    from asuka_infer.baselines.shift_map import shift_map  # noqa: PLC0415 - loaders import lazily

    return shift_map()


def _load_fsr() -> Inpainter:
    from asuka_infer.baselines.fsr import fsr  # noqa: PLC0415 - loaders import lazily

    return fsr()


def _load_biharmonic() -> Inpainter:
    from asuka_infer.baselines.biharmonic import biharmonic  # noqa: PLC0415 - loaders import lazily

    return biharmonic()


def _load_nearest_neighbour() -> Inpainter:
    from asuka_infer.baselines.nearest_neighbour import nearest_neighbour  # noqa: PLC0415 - loaders import lazily

    return nearest_neighbour()


def _load_asuka_mini() -> Inpainter:
    from asuka_infer.asuka import embedded  # noqa: PLC0415 - torch is loaded here and not before

    return embedded.asuka_mini(embedded.load_embedded())


def _load_sd_mini() -> Inpainter:
    from asuka_infer.asuka import embedded  # noqa: PLC0415 - torch is loaded here and not before

    return embedded.sd_mini(embedded.load_embedded())


def _load_sd_mini_prompt() -> Inpainter:
    from asuka_infer.asuka import embedded  # noqa: PLC0415 - torch is loaded here and not before

    tokens = prompt_of(embedded_folder())
    if tokens is None:
        raise WeightsNotHereError(f"sd-mini-prompt cannot run here: {_mini_prompt_readiness().how_to}")
    return embedded.sd_mini_prompt(embedded.load_embedded(), tokens)


def _load_sd_mini_repaint() -> Inpainter:
    from asuka_infer.asuka import embedded  # noqa: PLC0415 - torch is loaded here and not before

    return embedded.sd_mini_repaint(embedded.load_embedded())


def _load_mae_mini() -> Inpainter:
    from asuka_infer.asuka import embedded  # noqa: PLC0415 - torch is loaded here and not before

    return embedded.mae_mini(embedded.load_embedded())


def _mini_readiness() -> Readiness:
    """The embedded weights lie in the repository, or in a folder of one's own; nothing is downloaded."""
    if importlib.util.find_spec("torch") is None:
        return Readiness(ready=False, how_to="torch is not installed here; pip install -r requirements.txt.")
    if (embedded_folder() / MANIFEST).is_file():
        return READY
    if os.environ.get(FOLDER_VARIABLE):
        return Readiness(
            ready=False,
            how_to=f"there is no {MANIFEST} in ${FOLDER_VARIABLE}; name a folder that training exported.",
        )
    return Readiness(
        ready=False,
        how_to="its weights (asuka_infer/asuka/mini) are not in this checkout; get one that has them or train them "
        "with `python -m training`.",
    )


def _mini_prompt_readiness() -> Readiness:
    family = _mini_readiness()
    if not family.ready or prompt_of(embedded_folder()) is not None:
        return family
    return Readiness(
        ready=False, how_to="no tokens were learned for this UNet yet; learn them with `python -m training prompt`."
    )


_ASUKA_PAPER = 'Y. Wang et al., "Towards Context-Stable and Visual-Consistent Image Inpainting" (ASUKA), arXiv 2023'
_MINI_LICENCE = "Apache-2.0; weights for research use, see their model card"

_TABLE = (
    Method(
        key="asuka-mini",
        title="ASUKA (embedded)",
        summary="ASUKA at small scale: a masked auto-encoder's prior steers diffusion; the photo's texture goes on.",
        citation=_ASUKA_PAPER,
        licence=_MINI_LICENCE,
        load=_load_asuka_mini,
        needs=Needs(memory_mb=1000),
        readiness=_mini_readiness,
    ),
    Method(
        key="sd-mini",
        title="Stable Diffusion (embedded)",
        summary="The same diffusion backbone without ASUKA's prior and decoder: what ASUKA has to beat.",
        citation='R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022',
        licence=_MINI_LICENCE,
        load=_load_sd_mini,
        needs=Needs(memory_mb=1000),
        readiness=_mini_readiness,
    ),
    Method(
        key="sd-mini-prompt",
        title="Stable Diffusion (embedded), learned prompt",
        summary="The same backbone under tokens learned for all pictures alike: the paper's row SD-prompt.",
        citation=_ASUKA_PAPER,
        licence=_MINI_LICENCE,
        load=_load_sd_mini_prompt,
        needs=Needs(memory_mb=1000),
        readiness=_mini_prompt_readiness,
    ),
    Method(
        key="sd-mini-repaint",
        title="RePaint on Stable Diffusion (embedded)",
        summary="The same backbone, its known latents put back at every step and steps repeated: slow, harmonious.",
        citation='A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", CVPR 2022',
        licence=_MINI_LICENCE,
        load=_load_sd_mini_repaint,
        needs=Needs(memory_mb=1000),
        readiness=_mini_readiness,
    ),
    Method(
        key="mae-mini",
        title="Masked auto-encoder (embedded)",
        summary="The blurry prior of ASUKA itself: stable, never an unwanted object, no detail.",
        citation='K. He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022',
        licence=_MINI_LICENCE,
        load=_load_mae_mini,
        needs=Needs(memory_mb=1000),
        readiness=_mini_readiness,
    ),
    Method(
        key="telea",
        title="Telea (fast marching)",
        summary="Carries colours inwards from the rim: instant and smooth, fit for scratches.",
        citation='A. Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004',
        licence="Apache-2.0 (OpenCV)",
        load=_load_telea,
    ),
    Method(
        key="navier-stokes",
        title="Navier-Stokes",
        summary="Continues lines of equal brightness like a fluid: instant and smooth, fit for scratches.",
        citation='M. Bertalmio, A. Bertozzi, G. Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video '
        'Inpainting", CVPR 2001',
        licence="Apache-2.0 (OpenCV)",
        load=_load_navier_stokes,
    ),
    Method(
        key="shift-map",
        title="Shift map",
        summary="A seamless montage of the picture shifted by its own most frequent offsets: sharp, repeats structure.",
        citation='K. He, J. Sun, "Statistics of Patch Offsets for Image Completion", ECCV 2012',
        licence="Apache-2.0 (OpenCV)",
        load=_load_shift_map,
        needs=Needs(memory_mb=600),
    ),
    Method(
        key="fsr",
        title="Frequency-selective reconstruction",
        summary="Rebuilds each block from the few frequencies that explain its surroundings: suits regular texture.",
        citation='N. Genser, J. Seiler, F. Schilling, A. Kaup, "Signal and Loss Geometry Aware Frequency Selective '
        'Extrapolation for Error Concealment", PCS 2018',
        licence="Apache-2.0 (OpenCV)",
        load=_load_fsr,
    ),
    Method(
        key="biharmonic",
        title="Biharmonic",
        summary="The smoothest surface whose values and slopes fit at the rim: exact on gradients, no texture.",
        citation='S. B. Damelin, N. S. Hoang, "On Surface Completion and Image Inpainting by Biharmonic '
        'Functions", 2018',
        licence="BSD-3-Clause (scikit-image)",
        load=_load_biharmonic,
        needs=Needs(memory_mb=1600),
    ),
    Method(
        key="nearest-neighbour",
        title="Nearest-neighbour patches",
        summary="Makes every missing patch of the known patches most like it: the sharpest of the classics.",
        citation='Y. Wexler, E. Shechtman, M. Irani, "Space-Time Completion of Video", 2007; C. Barnes et al., '
        '"PatchMatch", 2009',
        licence="Apache-2.0 (this project)",
        load=_load_nearest_neighbour,
    ),
)


def _load_context_encoder_mini() -> Inpainter:
    from asuka_infer.baselines.context_encoder_mini import context_encoder_mini  # noqa: PLC0415 - torch is loaded here

    return context_encoder_mini()


def _load_lama_mini() -> Inpainter:
    from asuka_infer.baselines.lama_mini import lama_mini  # noqa: PLC0415 - torch is loaded here

    return lama_mini()


def _load_contextual_attention_mini() -> Inpainter:
    from asuka_infer.baselines.contextual_attention_mini import contextual_attention_mini  # noqa: PLC0415 - torch is loaded here

    return contextual_attention_mini()


def _load_dfnet_mini() -> Inpainter:
    from asuka_infer.baselines.dfnet_mini import dfnet_mini  # noqa: PLC0415 - torch is loaded here

    return dfnet_mini()


def _rival_weights(key: str) -> Path:
    return Path(__file__).parent / "baselines" / "mini_weights" / f"{key}.safetensors"


def _rival_readiness() -> Readiness:
    """Rivals are in the table because their weights are (`_trained`)."""
    if importlib.util.find_spec("torch") is None:
        return Readiness(ready=False, how_to="torch is not installed here; pip install -r requirements.txt.")
    return READY


RIVALS: tuple[Method, ...] = (
    Method(
        key="context-encoder-mini",
        title="Context encoder (embedded)",
        summary="A bottleneck must say what is missing: the first learned method, small; soft colours, little detail.",
        citation='D. Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016',
        licence=_MINI_LICENCE,
        load=_load_context_encoder_mini,
        needs=Needs(memory_mb=600),
        readiness=_rival_readiness,
    ),
    Method(
        key="lama-mini",
        title="LaMa (embedded)",
        summary="Fourier convolutions in one pass, each seeing the whole picture: small, not the published one.",
        citation='R. Suvorov et al., "Resolution-Robust Large Mask Inpainting with Fourier Convolutions", WACV 2022',
        licence=_MINI_LICENCE,
        load=_load_lama_mini,
        needs=Needs(memory_mb=900),
        readiness=_rival_readiness,
    ),
    Method(
        key="contextual-attention-mini",
        title="Contextual attention (embedded)",
        summary="Coarse to fine, the hole rebuilt from known patches that look alike: small, trained here.",
        citation='J. Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018',
        licence=_MINI_LICENCE,
        load=_load_contextual_attention_mini,
        needs=Needs(memory_mb=900),
        readiness=_rival_readiness,
    ),
    Method(
        key="dfnet-mini",
        title="Deep fusion network (embedded)",
        summary="Mixes its completion with the picture pixel by pixel at three sizes: small, trained here.",
        citation='X. Hong et al., "Deep Fusion Network for Image Completion", ACM MM 2019',
        licence=_MINI_LICENCE,
        load=_load_dfnet_mini,
        needs=Needs(memory_mb=900),
        readiness=_rival_readiness,
    ),
)
"""Older methods trained here, small; in `METHODS` are those whose weights lie beside their code (docs/rivals.md)."""


def _trained(rivals: tuple[Method, ...]) -> tuple[Method, ...]:
    """Those whose weights `python -m training.rivals export` has put beside their code."""
    return tuple(rival for rival in rivals if _rival_weights(rival.key).is_file())


_DIFFUSERS_PARTS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    "text_encoder/*.safetensors",
    "unet/*.safetensors",
    "vae/*.safetensors",
)
_HALF = ("unet/*.fp16.safetensors", "vae/*.fp16.safetensors", "text_encoder*/*.fp16.safetensors")
_SD15 = WeightSource(
    name="sd15",
    needed=_DIFFUSERS_PARTS,
    holds="a diffusers folder of Stable Diffusion 1.5 inpainting",
    repo="stable-diffusion-v1-5/stable-diffusion-inpainting",
    pick=_HALF,
    size_mb=2200,
)
_SD15_REPAINT = WeightSource(
    name="sd15-repaint",
    needed=_DIFFUSERS_PARTS,
    holds="a diffusers folder of Stable Diffusion 1.5, plain or inpainting,",
    repo=_SD15.repo,
    pick=_HALF,
    size_mb=2200,
    also=("sd15",),
)
_SD15_PROMPT = WeightSource(
    name="sd15-prompt",
    needed=("*.safetensors",),
    holds="one safetensors file with the learned tokens, (77, 768),",
    by_hand="they are trained with the backbone frozen, nobody publishes any",
)
_SD15_ASYMMETRIC = WeightSource(
    name="sd15-asymmetric",
    needed=("config.json", "*.safetensors"),
    holds="a diffusers folder of the asymmetric autoencoder",
    repo="cross-attention/asymmetric-autoencoder-kl-x-1-5",
    size_mb=700,
)
_SD2 = WeightSource(
    name="sd2",
    needed=_DIFFUSERS_PARTS,
    holds="a diffusers folder of Stable Diffusion 2 inpainting",
    repo="sd2-community/stable-diffusion-2-inpainting",
    pick=_HALF,
    size_mb=2600,
)
_SDXL = WeightSource(
    name="sdxl",
    needed=(*_DIFFUSERS_PARTS, "tokenizer_2/*", "text_encoder_2/*.safetensors"),
    holds="a diffusers folder of Stable Diffusion XL inpainting",
    repo="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    pick=_HALF,
    size_mb=7000,
)
_FLUX_FILL = WeightSource(
    name="flux-fill",
    needed=(
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/*",
        "tokenizer_2/*",
        "text_encoder/*.safetensors",
        "text_encoder_2/*.safetensors",
        "transformer/*.safetensors",
        "vae/*.safetensors",
    ),
    holds="a diffusers folder of FLUX.1 Fill",
    repo="black-forest-labs/FLUX.1-Fill-dev",
    gated=True,
    size_mb=34000,
)
_FLUX_TRANSFORMER = WeightSource(
    name="flux-fill",
    needed=("scheduler/scheduler_config.json", "transformer/*.safetensors"),
    holds="a diffusers folder of FLUX.1 Fill",
    repo=_FLUX_FILL.repo,
    gated=True,
    size_mb=24000,
)
_ASUKA_FLUX = WeightSource(
    name="asuka-flux",
    needed=(
        "**/mae_300.pth",
        "**/asuka_alignment_clip.pt",
        "**/asuka_alignment_t5.pt",
        "**/asuka_decoder.ckpt",
        "**/vec.pt",
        "**/txt_256.pt",
    ),
    holds="the folder `ckpt` of ASUKA's release",
    repo="yikaiwang/ASUKA-FLUX.1-Fill",
    pick=("*.pth", "*.pt", "*.ckpt"),
    size_mb=6000,
    standalone=("model_index.json", "prior/*.safetensors", "transformer/*.safetensors", "vae/*.safetensors"),
)
_ASUKA_SD15 = WeightSource(
    name="asuka-sd15",
    needed=("model_index.json", "prior/*.safetensors", "alignment/*.safetensors", "unet/*.safetensors"),
    holds="a folder that `AsukaInpaintPipeline.save_pretrained` wrote",
    by_hand="the authors have not released these weights, so they must be trained",
)
_LAMA = WeightSource(
    name="lama",
    needed=("*.safetensors|*.pt|*.pth",),
    holds="big-lama.pt (or .safetensors)",
    url="https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
    sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
    md5="e3aa4aaa15225a33ec84f9f4bc47e500",
    size_mb=206,
)
_MAT = WeightSource(
    name="mat",
    needed=("*.safetensors|*.pt|*.pth",),
    holds="MAT_Places512_G_fp16.safetensors (or .pth)",
    repo="Acly/MAT",
    pick=("MAT_Places512_G_fp16.safetensors",),
    size_mb=130,
)
_MIGAN = WeightSource(
    name="migan",
    needed=("migan_pipeline_v2.onnx",),
    holds="migan_pipeline_v2.onnx",
    repo="andraniksargsyan/migan",
    size_mb=30,
)
_MAE = WeightSource(
    name="mae",
    needed=("*.safetensors|*.pt|*.pth",),
    holds="model.safetensors of a ViT-MAE, mae_300.pth or mae_visualize_vit_*.pth",
    repo="facebook/vit-mae-base",
    pick=("model.safetensors",),
    size_mb=450,
)

NON_COMMERCIAL_VARIABLE = "ASUKA_NON_COMMERCIAL"
"""Set to 1 by those whose use is non-commercial research; methods that allow no other are off without it."""


def _folder(source: WeightSource) -> Path:
    folder = locate(source)
    if folder is None:
        raise WeightsNotHereError(f"{source.name} needs {source.holds} in {source.local}.")
    return folder


def _build_asuka_sd15() -> Inpainter:
    from asuka_infer.asuka.full_size import asuka_sd  # noqa: PLC0415 - torch is loaded here and not before

    return asuka_sd(_folder(_ASUKA_SD15))


def _build_asuka_flux() -> Inpainter:
    from asuka_infer.asuka.full_size import asuka_flux  # noqa: PLC0415 - torch is loaded here and not before

    release = _folder(_ASUKA_FLUX)
    return asuka_flux(release, locate(_FLUX_TRANSFORMER) or release)


def _build_sd15() -> Inpainter:
    from asuka_infer.baselines.stable_diffusion import empty_prompt  # noqa: PLC0415 - torch is loaded here

    return empty_prompt(_folder(_SD15))


def _build_sd15_text() -> Inpainter:
    from asuka_infer.baselines.stable_diffusion import text_prompt  # noqa: PLC0415 - torch is loaded here

    return text_prompt(_folder(_SD15))


def _build_sd15_prompt() -> Inpainter:
    from asuka_infer.baselines.stable_diffusion import learned_prompt  # noqa: PLC0415 - torch is loaded here

    return learned_prompt(_folder(_SD15), locate_file(_SD15_PROMPT))


def _build_sd15_repaint() -> Inpainter:
    from asuka_infer.baselines.repaint_sd import repaint_sd  # noqa: PLC0415 - torch is loaded here

    return repaint_sd(_folder(_SD15_REPAINT))


def _build_sd15_asymmetric() -> Inpainter:
    from asuka_infer.baselines.stable_diffusion import asymmetric  # noqa: PLC0415 - torch is loaded here

    return asymmetric(_folder(_SD15), _folder(_SD15_ASYMMETRIC))


def _build_sd2() -> Inpainter:
    from asuka_infer.baselines.stable_diffusion import empty_prompt  # noqa: PLC0415 - torch is loaded here

    return empty_prompt(_folder(_SD2))


def _build_sdxl() -> Inpainter:
    from asuka_infer.baselines.sdxl import sdxl  # noqa: PLC0415 - torch is loaded here

    return sdxl(_folder(_SDXL))


def _build_flux_fill() -> Inpainter:
    from asuka_infer.baselines.flux_fill import flux_fill  # noqa: PLC0415 - torch is loaded here

    return flux_fill(_folder(_FLUX_FILL))


def _build_lama() -> Inpainter:
    from asuka_infer.baselines.lama import lama  # noqa: PLC0415 - torch is loaded here

    return lama(locate_file(_LAMA))


def _build_mat() -> Inpainter:
    from asuka_infer.baselines.mat import mat  # noqa: PLC0415 - torch is loaded here

    return mat(locate_file(_MAT))


def _build_migan() -> Inpainter:
    from asuka_infer.baselines.migan import migan  # noqa: PLC0415 - onnxruntime is loaded here

    return migan(locate_file(_MIGAN))


def _build_mae() -> Inpainter:
    from asuka_infer.baselines.mae_prior import mae  # noqa: PLC0415 - torch is loaded here

    return mae(locate_file(_MAE))


def _weighted(
    key: str,
    *sources: WeightSource,
    title: str,
    summary: str,
    citation: str,
    licence: str,
    build: Callable[[], Inpainter],
    memory_mb: int,
    gpu: bool = True,
    packages: tuple[str, ...] = (),
    shares: str = "",
    non_commercial: bool = False,
) -> Method:
    """A method that runs when its packages and weights are here; nothing is ever downloaded by running it."""

    def missing() -> str:
        said = what_is_missing(key, sources, packages)
        if non_commercial and os.environ.get(NON_COMMERCIAL_VARIABLE) != "1":
            asked = f"set {NON_COMMERCIAL_VARIABLE}=1 if your use is non-commercial research"
            said = f"{asked}, and {said}" if said else f"{asked}."
        return said

    def readiness() -> Readiness:
        said = missing()
        return Readiness(ready=not said, how_to=said)

    def load() -> Inpainter:
        said = missing()
        if said:
            raise WeightsNotHereError(f"{key} cannot run here: {said}")
        return build()

    size = sum(source.size_mb for source in sources)
    needs = Needs(gpu=gpu, download_mb=size, memory_mb=memory_mb, packages=packages)
    return Method(key, title, summary, citation, licence, load, needs, readiness, sources, shares)


_SD_PAPER = 'R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022'
_SD15_LICENCE = "CreativeML Open RAIL-M (weights)"
_FLUX_LICENCE = "FLUX.1 [dev] Non-Commercial License (weights)"

_WEIGHTED = (
    _weighted(
        "asuka-sd15",
        _ASUKA_SD15,
        title="ASUKA (Stable Diffusion 1.5)",
        summary="The method of the paper on the paper's backbone: prior, alignment and decoder at full size.",
        citation=_ASUKA_PAPER,
        licence=f"Apache-2.0 (this project's code); {_SD15_LICENCE} for the backbone",
        build=_build_asuka_sd15,
        memory_mb=5500,
    ),
    _weighted(
        "asuka-flux",
        _ASUKA_FLUX,
        _FLUX_TRANSFORMER,
        title="ASUKA (FLUX.1 Fill)",
        summary="The authors' release: the prior steers FLUX.1 Fill in its text's place, the decoder holds colours.",
        citation=_ASUKA_PAPER,
        licence=f"{_FLUX_LICENCE}; ASUKA's weights for research only",
        build=_build_asuka_flux,
        memory_mb=30000,
    ),
    _weighted(
        "sd15",
        _SD15,
        title="Stable Diffusion 1.5",
        summary="ASUKA's backbone with an empty text: what the paper's row SD shows.",
        citation=_SD_PAPER,
        licence=_SD15_LICENCE,
        build=_build_sd15,
        memory_mb=5000,
        shares="sd15",
    ),
    _weighted(
        "sd15-text",
        _SD15,
        title="Stable Diffusion 1.5, text",
        summary='The same backbone told to paint "background", or any other text: the row SD-text.',
        citation=_SD_PAPER,
        licence=_SD15_LICENCE,
        build=_build_sd15_text,
        memory_mb=5000,
        shares="sd15",
    ),
    _weighted(
        "sd15-prompt",
        _SD15,
        _SD15_PROMPT,
        title="Stable Diffusion 1.5, learned prompt",
        summary="The same backbone under tokens learned for all pictures alike: the row SD-prompt.",
        citation=_SD_PAPER,
        licence=_SD15_LICENCE,
        build=_build_sd15_prompt,
        memory_mb=5000,
        shares="sd15",
    ),
    _weighted(
        "sd15-repaint",
        _SD15_REPAINT,
        title="RePaint on Stable Diffusion 1.5",
        summary="Known latents put back at every step, steps repeated: slow, on the inpainting or the plain backbone.",
        citation='A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", CVPR 2022',
        licence=_SD15_LICENCE,
        build=_build_sd15_repaint,
        memory_mb=5000,
        shares="sd15",
    ),
    _weighted(
        "sd15-asymmetric",
        _SD15,
        _SD15_ASYMMETRIC,
        title="Stable Diffusion 1.5, asymmetric decoder",
        summary="The same backbone, its decoder shown the known pixels but taught no colours: the row + cond.",
        citation='Z. Zhu et al., "Designing a Better Asymmetric VQGAN for StableDiffusion", 2023',
        licence=f"{_SD15_LICENCE}; MIT (decoder)",
        build=_build_sd15_asymmetric,
        memory_mb=5500,
        shares="sd15",
    ),
    _weighted(
        "sd2",
        _SD2,
        title="Stable Diffusion 2",
        summary="The successor of ASUKA's backbone, with an empty text.",
        citation=_SD_PAPER,
        licence="CreativeML Open RAIL++-M (weights)",
        build=_build_sd2,
        memory_mb=5500,
    ),
    _weighted(
        "sdxl",
        _SDXL,
        title="Stable Diffusion XL",
        summary="A larger diffusion model that works at 1024 px, with an empty text or any other.",
        citation='D. Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image '
        'Synthesis", ICLR 2024',
        licence="CreativeML Open RAIL++-M (weights)",
        build=_build_sdxl,
        memory_mb=10500,
    ),
    _weighted(
        "flux-fill",
        _FLUX_FILL,
        title="FLUX.1 Fill",
        summary="The backbone of ASUKA's release alone, with an empty text or any other.",
        citation="Black Forest Labs, FLUX.1 Fill [dev], 2024",
        licence=_FLUX_LICENCE,
        build=_build_flux_fill,
        memory_mb=36000,
    ),
    _weighted(
        "lama",
        _LAMA,
        title="LaMa",
        summary="Fourier convolutions in one pass: fast, calm, strong on repeated structure, blurs large holes.",
        citation='R. Suvorov et al., "Resolution-Robust Large Mask Inpainting with Fourier Convolutions", WACV 2022',
        licence="Apache-2.0",
        build=_build_lama,
        memory_mb=2500,
        gpu=False,
        packages=("spandrel",),
    ),
    _weighted(
        "mat",
        _MAT,
        title="MAT",
        summary="A transformer that sees large holes whole and paints plausible, detailed content in one pass.",
        citation='W. Li et al., "MAT: Mask-Aware Transformer for Large Hole Image Inpainting", CVPR 2022',
        licence="CC BY-NC 4.0, non-commercial research only",
        build=_build_mat,
        memory_mb=2500,
        gpu=False,
        packages=("spandrel", "spandrel_extra_arches"),
        non_commercial=True,
    ),
    _weighted(
        "migan",
        _MIGAN,
        title="MI-GAN",
        summary="A network made for phones: well under a second on a CPU.",
        citation='A. Sargsyan et al., "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices", ICCV 2023',
        licence="MIT",
        build=_build_migan,
        memory_mb=600,
        gpu=False,
        packages=("onnxruntime",),
    ),
    _weighted(
        "mae",
        _MAE,
        title="Masked auto-encoder",
        summary="The published auto-encoder's own blurry guess, from which ASUKA's prior is taken.",
        citation='K. He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022',
        licence="CC BY-NC 4.0 (the original release; the hub's copy says Apache-2.0)",
        build=_build_mae,
        memory_mb=1500,
        gpu=False,
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.key: method for method in (*_TABLE, *_trained(RIVALS), *_WEIGHTED)}
)
"""All methods by key, in the order they are listed to people."""


def find_method(key: str) -> Method:
    """The method of that key.

    Raises:
        UnknownMethodError: when there is none, naming near matches and all keys.
    """
    if key in METHODS:
        return METHODS[key]
    near = difflib.get_close_matches(key, METHODS, n=2)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise UnknownMethodError(f"There is no method {key!r}{hint}; choose one of {', '.join(METHODS)}.")
