"""ASUKA on FLUX.1 Fill, the released method, as a diffusers pipeline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor, nn

from asuka_infer.asuka.alignment import FLUX_CONDITION_WEIGHT, FluxAlignment, from_null
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.scene import Scene, SceneError, candidate_seeds, prior_view, scene_from
from asuka_infer.noise import noise_for_seeds
from asuka_infer.weights import WeightsError, read_tensor

RELEASE_GUIDANCE, RELEASE_STEPS = 30.0, 50
"""The release's guidance embedding and Euler steps."""


class NullPrompt(ModelMixin, ConfigMixin):
    """What FLUX's text encoders say to the empty prompt: where the way to the prior starts.

    `pooled_vector` is CLIP's vector, `token_sequence` T5's, padded to as many tokens as the prior has.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, *, pooled_width: int = 768, width: int = 4096, tokens: int = 256) -> None:
        super().__init__()
        self.pooled_vector = nn.Parameter(torch.zeros(1, pooled_width), requires_grad=False)
        self.token_sequence = nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)

    @classmethod
    def from_files(cls, pooled: Path, tokens: Path) -> "NullPrompt":
        """Read the release's `vec.pt` and `txt_256.pt` (`txt.pt` is padded to 512 tokens and does not fit the prior).

        Raises:
            WeightsError: when a file is missing or its tensor has another form.
        """
        vector, sequence = read_tensor(pooled), read_tensor(tokens)
        if vector.ndim != 2 or sequence.ndim != 3 or len(vector) != 1 or len(sequence) != 1:  # noqa: PLR2004 - (1, w), (1, n, w)
            raise WeightsError(
                f"{pooled} and {tokens} hold {tuple(vector.shape)} and {tuple(sequence.shape)}, but one vector "
                "(1, width) and one sequence (1, tokens, width) are needed; the release's are vec.pt and txt_256.pt."
            )
        null = cls(pooled_width=vector.shape[1], width=sequence.shape[2], tokens=sequence.shape[1])
        null.pooled_vector.data.copy_(vector)
        null.token_sequence.data.copy_(sequence)
        return cast("Any", null).to(vector.dtype)


class AsukaFluxFillPipeline(FluxFillPipeline):
    """FLUX.1 Fill steered by the MAE prior through two alignments and decoded with the known pixels in view.

    Its vae is the conditional one for the method, or a plain one for the ablation. Text encoders are not needed.
    Load with `AsukaFluxFillPipeline.from_pretrained(folder)`.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->prior->pooled_alignment->token_alignment->transformer->vae"
    _optional_components = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]  # noqa: RUF012 - read off the class

    def __init__(
        self,
        *,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL | AsymmetricAutoencoderKL,
        transformer: FluxTransformer2DModel,
        prior: MaskedAutoencoder,
        pooled_alignment: FluxAlignment,
        token_alignment: FluxAlignment,
        null: NullPrompt,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
    ) -> None:
        super().__init__(
            scheduler=scheduler,
            vae=cast("Any", vae),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=transformer,
        )
        self.register_modules(
            prior=prior, pooled_alignment=pooled_alignment, token_alignment=token_alignment, null=null
        )

    @torch.no_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a narrower call on purpose: seeds, no prompts
        self,
        image: Any,
        mask_image: Any,
        *,
        seeds: int | Sequence[int] = 0,
        candidates: int = 1,
        prior_image: Any = None,
        condition_weight: float = FLUX_CONDITION_WEIGHT,
        guidance_scale: float = RELEASE_GUIDANCE,
        num_inference_steps: int = RELEASE_STEPS,
        output_type: str = "pil",
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ) -> FluxPipelineOutput:
        """Fill the holes.

        Args:
            image: one picture or several of one size, in diffusers' forms; sides are multiples of 16.
            mask_image: their holes, white = missing.
            seeds: one for all, or one per picture; a result depends on its own picture and seed alone.
            candidates: results per picture, in a row; the k-th (from 0) is that of seed + k.
            prior_image: what the auto-encoder sees instead of the photo: a picture, or "blank".
            condition_weight: how far to go from the empty prompt (0: plain FLUX Fill) to the prior (1).
            guidance_scale: FLUX Fill's guidance embedding; there is no second pass.
            num_inference_steps: Euler steps.
            output_type: "pil", "np", "pt" or "latent" (unpacked and unscaled); nothing is composited.
            callback_on_step_end: as in diffusers.

        Raises:
            SceneError: when pictures, holes or seeds do not fit each other.
        """
        scene = scene_from(image, mask_image, multiple=2 * self.vae_scale_factor)
        row_seeds = candidate_seeds(seeds, len(scene.image), candidates)
        pooled, tokens = self.conditions_of(scene, prior_image, weight=condition_weight)
        finished: Any = super().__call__(
            prompt_embeds=cast("Any", tokens.repeat_interleave(candidates, 0)),
            pooled_prompt_embeds=cast("Any", pooled.repeat_interleave(candidates, 0)),
            image=cast("Any", scene.image),
            mask_image=cast("Any", scene.hole.float()),
            height=scene.size[0],
            width=scene.size[1],
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            latents=cast("Any", self._packed_noise(row_seeds, scene)),
            output_type="latent",
            callback_on_step_end=cast("Any", callback_on_step_end),
        )
        images = self._unpacked(finished.images, scene)
        if output_type != "latent":
            decoded = self._decode(images, scene.repeated(candidates))
            images = cast("Any", self.image_processor.postprocess(decoded, output_type=output_type))
        self.maybe_free_model_hooks()
        return FluxPipelineOutput(images=images)

    def conditions_of(
        self, scene: Scene, prior_image: Any = None, *, weight: float = FLUX_CONDITION_WEIGHT
    ) -> tuple[Float[Tensor, "pictures pooled_width"], Float[Tensor, "pictures tokens width"]]:
        """What stands in for CLIP's pooled vector and for T5's tokens, once per picture.

        Raises:
            SceneError: when the prior pictures do not fit.
        """
        seen, hole = prior_view(scene, prior_image)
        device, dtype = self._execution_device, self.transformer.dtype
        prior = self.prior.prior(seen.to(device), hole.to(device))
        pooled = self.pooled_alignment(prior.to(self.pooled_alignment.dtype)).mean(dim=1).to(dtype)
        tokens = self.token_alignment(prior.to(self.token_alignment.dtype)).to(dtype)
        null_pooled, null_tokens = self.null.pooled_vector.to(device, dtype), self.null.token_sequence.to(device, dtype)
        return from_null(pooled, null_pooled, weight), from_null(tokens, null_tokens, weight)

    def prepare_mask_latents(  # noqa: PLR0917 - diffusers' signature
        self,
        mask: Tensor,
        masked_image: Tensor,
        batch_size: int,
        num_channels_latents: int,
        num_images_per_prompt: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Any,
    ) -> tuple[Tensor, Tensor]:
        """Stock's, except that each picture is encoded once, to its mean, and candidates lie in a row.

        FLUX keeps all 64 pixels of a cell's hole as channels, so no stroke can vanish here.
        """
        candidates = batch_size // len(mask)
        if batch_size % len(mask):
            raise SceneError(f"{batch_size} conditions were given for {len(mask)} pictures; give a whole multiple.")
        known = self.vae.encode(masked_image.to(self.vae.dtype)).latent_dist.mode()  # pyright: ignore[reportAttributeAccessIssue] - a tuple only if asked for
        return super().prepare_mask_latents(
            mask.repeat_interleave(candidates, 0),
            known.repeat_interleave(candidates, 0),
            batch_size,
            num_channels_latents,
            num_images_per_prompt,
            height,
            width,
            dtype,
            device,
            generator,
        )

    def _packed_noise(self, seeds: list[int], scene: Scene) -> Tensor:
        channels = self.vae.config["latent_channels"]
        height, width = (side // self.vae_scale_factor for side in scene.size)
        noise = noise_for_seeds(seeds, (channels, height, width)).to(self._execution_device, self.transformer.dtype)
        return self._pack_latents(noise, len(seeds), channels, height, width)

    def _unpacked(self, latents: Tensor, scene: Scene) -> Any:
        z = self._unpack_latents(latents, *scene.size, self.vae_scale_factor)
        return z / self.vae.config["scaling_factor"] + self.vae.config["shift_factor"]

    def _decode(self, z: Tensor, rows: Scene) -> Tensor:
        z = z.to(self.vae.dtype)
        if not isinstance(self.vae, AsymmetricAutoencoderKL):
            return self.vae.decode(z).sample  # pyright: ignore[reportAttributeAccessIssue] - a tuple only if asked for
        image = (rows.image * 2 - 1).to(z)
        return self.vae.decode(z, image=image, mask=rows.hole.to(z)).sample  # pyright: ignore[reportAttributeAccessIssue] - same
