"""ASUKA on Stable Diffusion's inpainting models, as a diffusers pipeline (paper 000 sec. 3)."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import touched_cells
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.scene import Scene, SceneError, candidate_seeds, prior_view, scene_from

DEFAULT_STEPS = 20
"""Our choice: second-order solvers have converged by then; the paper does not say."""


class AsukaInpaintPipeline(StableDiffusionInpaintPipeline):
    """Stock Stable Diffusion inpainting whose text is the aligned MAE prior and whose decoder sees the known pixels.

    What differs from the stock pipeline, beyond that: the hole on the latent grid is every cell it touches (stock:
    nearest pixel, where thin strokes vanish); the hole is blanked before anything else, so that nothing under it is
    ever read; every picture has its own seed; pictures are encoded once; guidance is off. With `prompt` or
    `prompt_embeds` it is the baseline on the same terms. Without `prior` and `alignment` it is nothing else.

    Load with `AsukaInpaintPipeline.from_pretrained(folder)`.
    """

    model_cpu_offload_seq = "text_encoder->prior->alignment->unet->vae"
    _optional_components = [  # noqa: RUF012 - diffusers reads this list off the class
        "text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder", "prior", "alignment",
    ]  # fmt: skip

    def __init__(
        self,
        *,
        vae: AutoencoderKL | AsymmetricAutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        prior: MaskedAutoencoder | None = None,
        alignment: Alignment | None = None,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        safety_checker: Any = None,
        feature_extractor: CLIPImageProcessor | None = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = False,
    ) -> None:
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,  # pyright: ignore[reportArgumentType] - optional, though diffusers' hint says not
            tokenizer=tokenizer,  # pyright: ignore[reportArgumentType] - same
            unet=unet,
            scheduler=cast("Any", scheduler),
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,  # pyright: ignore[reportArgumentType] - same
            image_encoder=image_encoder,
            requires_safety_checker=requires_safety_checker,
        )
        self.register_modules(prior=prior, alignment=alignment)

    @torch.no_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a narrower call on purpose: seeds, no sizes
        self,
        image: Any,
        mask_image: Any,
        *,
        seeds: int | Sequence[int] = 0,
        candidates: int = 1,
        prior_image: Any = None,
        prompt: str | None = None,
        prompt_embeds: Float[Tensor, "pictures tokens width"] | None = None,
        negative_prompt_embeds: Float[Tensor, "pictures tokens width"] | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = DEFAULT_STEPS,
        output_type: str = "pil",
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ) -> StableDiffusionPipelineOutput:
        """Fill the holes.

        Args:
            image: one picture or several of one size, in diffusers' forms; sides are multiples of 8.
            mask_image: their holes, white = missing.
            seeds: one for all, or one per picture; a result depends on its own picture and seed alone.
            candidates: results per picture, in a row; the k-th (from 0) is that of seed + k.
            prior_image: what the auto-encoder sees instead of the photo: a picture, or "blank".
            prompt: a text instead of the prior, for the baselines; needs the text encoder.
            prompt_embeds: ready conditions instead of the prior.
            negative_prompt_embeds: what guidance leads away from, of the same shape as the condition.
            guidance_scale: 1 is no guidance, as in the paper.
            num_inference_steps: denoising steps.
            output_type: "pil", "np", "pt" or "latent"; nothing is composited.
            callback_on_step_end: as in diffusers.

        Raises:
            SceneError: when pictures, holes, seeds or conditions do not fit each other.
        """
        scene = scene_from(image, mask_image, multiple=self.vae_scale_factor)
        row_seeds = candidate_seeds(seeds, len(scene.image), candidates)
        condition, negative = self._conditions(scene, prior_image, prompt, prompt_embeds, negative_prompt_embeds)
        if guidance_scale > 1 and negative is None:
            raise SceneError(f"Guidance {guidance_scale} needs negative_prompt_embeds to lead away from; or give 1.")
        rows = scene.repeated(candidates)
        latents = self._denoised(
            rows,
            row_seeds,
            known=self._known_latents(scene).repeat_interleave(candidates, 0),
            prompt_embeds=condition.repeat_interleave(candidates, 0),
            negative_prompt_embeds=None if negative is None else negative.repeat_interleave(candidates, 0),
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            callback_on_step_end=cast("Any", callback_on_step_end),
        )
        finished = latents if output_type == "latent" else self._decode(latents, rows)
        self.maybe_free_model_hooks()
        if output_type != "latent":
            finished = cast("Any", self.image_processor.postprocess(finished, output_type=output_type))
        return StableDiffusionPipelineOutput(images=cast("Any", finished), nsfw_content_detected=None)

    def condition_of(self, scene: Scene, prior_image: Any = None) -> Float[Tensor, "pictures tokens width"]:
        """The aligned prior of each picture, or of the picture (or "blank" paper) given in its place.

        Raises:
            SceneError: when the pipeline has no prior or no alignment, or the pictures do not fit.
        """
        if self.prior is None or self.alignment is None:
            raise SceneError("This pipeline has no MAE prior or no alignment; give a prompt or prompt_embeds.")
        seen, hole = prior_view(scene, prior_image)
        device = self._execution_device
        prior = self.prior.prior(seen.to(device), hole.to(device))
        condition = self.alignment(prior.to(self.alignment.dtype))
        return condition.expand(len(scene.image), -1, -1).to(self.unet.dtype)

    def prepare_mask_latents(  # noqa: PLR0917 - diffusers' signature
        self,
        mask: Tensor,
        masked_image: Tensor,
        batch_size: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Any,
        do_classifier_free_guidance: bool,  # noqa: FBT001 - same
    ) -> tuple[Tensor, Tensor]:
        """Stock's, with the hole by area > 0 on the latent grid."""
        cells = touched_cells(mask, (height // self.vae_scale_factor, width // self.vae_scale_factor))
        return super().prepare_mask_latents(
            cells.to(mask),
            masked_image,
            batch_size,
            height,
            width,
            dtype,
            device,
            generator,
            do_classifier_free_guidance,
        )

    def _conditions(
        self, scene: Scene, prior_image: Any, prompt: str | None, embeds: Tensor | None, negative: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Condition and negative condition, one row per picture."""
        count, device, dtype = len(scene.image), self._execution_device, self.unet.dtype
        if prompt is not None:
            if self.text_encoder is None:
                raise SceneError("A prompt needs a text encoder, and this pipeline has none; leave the prompt out.")
            embeds, negative = self.encode_prompt(prompt, device, 1, True, negative_prompt="")  # noqa: FBT003 - diffusers' signature
        condition = self.condition_of(scene, prior_image) if embeds is None else embeds.to(device, dtype)
        if len(condition) not in {1, count}:
            raise SceneError(f"{len(condition)} conditions were given for {count} pictures; give one each.")
        if negative is not None:
            negative = negative.to(device, dtype).expand(count, -1, -1)
            if negative.shape[1:] != condition.shape[1:]:
                raise SceneError(
                    f"The negative condition is {tuple(negative.shape)}; {tuple(condition.shape)} is needed."
                )
        return condition.expand(count, -1, -1), negative

    def _denoised(
        self, rows: Scene, seeds: list[int], *, known: Tensor, prompt_embeds: Tensor, **stock: Any
    ) -> Float[Tensor, "rows channels latent_height latent_width"]:
        """Stock's denoising of one row per picture and candidate, from the noise of its seed."""
        generators, noise = self._noise(seeds, rows)
        finished: Any = super().__call__(
            prompt_embeds=prompt_embeds,
            image=rows.image,
            mask_image=rows.hole.float(),
            masked_image_latents=known,
            height=rows.size[0],
            width=rows.size[1],
            generator=generators,
            latents=noise.to(prompt_embeds.dtype),
            output_type="latent",
            **stock,
        )
        return finished.images

    def _noise(self, seeds: list[int], scene: Scene) -> tuple[list[torch.Generator], Tensor]:
        """One CPU generator per row, and the noise that each drew first: `noise_for_seeds`, on any device."""
        shape = (self.vae.config["latent_channels"], *(side // self.vae_scale_factor for side in scene.size))
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return generators, noise.to(self._execution_device)

    def _known_latents(self, scene: Scene) -> Tensor:
        """The mean latents of the known pixels, once per picture (stock samples them, once per result)."""
        vae = self.vae
        grey = (scene.image * 2 - 1).to(self._execution_device, vae.dtype)
        return vae.encode(grey).latent_dist.mode() * vae.config["scaling_factor"]

    def _encode_vae_image(self, image: Tensor, generator: Any) -> Tensor:
        """The mean, not a sample: stock calls this for 4-channel UNets, whose known part must not be random."""
        del generator
        return self.vae.encode(image.to(self.vae.dtype)).latent_dist.mode() * self.vae.config["scaling_factor"]

    def _decode(self, latents: Tensor, rows: Scene) -> Tensor:
        z = (latents / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        if not isinstance(self.vae, AsymmetricAutoencoderKL):
            return self.vae.decode(z).sample  # pyright: ignore[reportAttributeAccessIssue] - a tuple only if asked for
        image = (rows.image * 2 - 1).to(z)
        return self.vae.decode(z, image=image, mask=rows.hole.to(z)).sample  # pyright: ignore[reportAttributeAccessIssue] - same
