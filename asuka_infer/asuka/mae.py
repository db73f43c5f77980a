"""The Masked Auto-Encoder whose decoder features steer the diffusion model (paper 000 sec. 3.1), on timm's ViT blocks.

Parameter names are those of the public MAE checkpoints; `checkpoints.py` reads the other spellings.
"""

from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Bool, Float, Int
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.asuka.first_fill import first_fill

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""The mean RGB in [0, 1] that every public MAE was trained with."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""The RGB standard deviation that every public MAE was trained with."""

NORM_EPSILON = 1e-6
"""MAE's own; the hub's ViT-MAE configuration says 1e-12 but its weights come from models trained with this."""

MLP_RATIO = 4
"""Hidden width of a block's MLP over its width, as in every ViT of the MAE paper."""

INIT_STD = 0.02
"""Standard deviation of freshly drawn tokens, as in MAE."""


class Sight(NamedTuple):
    """What the auto-encoder may see of a batch of pictures.

    Attributes:
        pixels: ImageNet-normalised at the model's size; 0 wherever the hole reaches, even partly.
        missing: at the model's size, True where a pixel's area touches the hole.
        hidden: True for every token that holds at least one missing pixel, row by row.
    """

    pixels: Float[Tensor, "batch 3 side side"]
    missing: Bool[Tensor, "batch 1 side side"]
    hidden: Bool[Tensor, "batch tokens"]


class Idea(NamedTuple):
    """What the auto-encoder makes of a batch of pictures.

    Attributes:
        prior: see `MaskedAutoencoder.prior`.
        picture: at the model's size; imagined where a pixel's area touches the hole, RGB in [0, 1].
        filled: at the size of the pictures; imagined under the hole, the picture itself elsewhere.
    """

    prior: Float[Tensor, "batch tokens decoder_width"]
    picture: Float[Tensor, "batch 3 side side"]
    filled: Float[Tensor, "batch 3 height width"]


class MaskedAutoencoder(ModelMixin, ConfigMixin):
    """A MAE that reads any hole, per picture, and hands out features of one of its decoder layers.

    Defaults are the ViT-B of the paper's release: 256 tokens of 768, decoder of 512, prior after decoder layer 6.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 256,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        prior_layer: int = 6,
        use_cls_token: bool = False,
        residual: bool = False,  # noqa: ARG002 - kept in the config
    ) -> None:
        """Build it with random weights.

        Args:
            image_size: side in pixels at which the model works; pictures of any size are brought to it.
            patch_size: side of a token in pixels.
            width: encoder features.
            depth: encoder blocks.
            heads: encoder attention heads.
            decoder_width: decoder features, and those of the prior.
            decoder_depth: decoder blocks (all of them are needed for the reconstruction only).
            decoder_heads: decoder attention heads.
            prior_layer: number of decoder blocks after which the prior is taken, 1..decoder_depth.
            use_cls_token: public weights were trained with one; the paper's own drops it.
            residual: hidden tokens are told the smoothest fill and pixels are predicted as what is to be added to it
                (ours, for the embedded family: an untrained one is then as good as that fill). Public weights are not.

        Raises:
            MaeSizeError: when the sizes do not fit each other.
        """
        super().__init__()
        _refuse_odd_sizes(image_size, patch_size, prior_layer, decoder_depth)
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbed(image_size, patch_size, 3, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if use_cls_token else None
        self.blocks = _blocks(width, heads, depth)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_patch_embed = PatchEmbed(image_size, patch_size, 4, decoder_width)
        self.alpha = nn.Parameter(torch.ones(()))
        self.decoder_blocks = _blocks(decoder_width, decoder_heads, decoder_depth)
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=NORM_EPSILON)
        self.decoder_pred = nn.Linear(decoder_width, patch_size**2 * 3)
        self.register_buffer("pos_embed", sincos_positions(width, self.grid), persistent=False)
        self.register_buffer("decoder_pos_embed", sincos_positions(decoder_width, self.grid), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self._initialise()

    @apply_forward_hook
    @torch.no_grad()
    def prior(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch tokens decoder_width"]:
        """The context-stable prior of each picture: decoder features, the blurry mean estimate of what is missing.

        Args:
            image: RGB in [0, 1], any size; what lies under the hole is never read.
            hole: True = missing.

        Raises:
            MaeOutputError: when weights or pictures make a feature infinite or not a number.
        """
        return self._prior_of(self.look(image, hole))[:, self._prefix :]

    @apply_forward_hook
    @torch.no_grad()
    def reconstructed_prior(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens decoder_width"]:
        """The prior of a picture seen whole (paper 000 sec. 3.2, "MAE reconstructed prior")."""
        return self.prior(image, torch.zeros_like(image[:, :1], dtype=torch.bool))

    @apply_forward_hook
    @torch.no_grad()
    def reconstruct(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """What the auto-encoder imagines where pixels are missing, the picture elsewhere; RGB in [0, 1]."""
        return self.prior_and_picture(image, hole)[1]

    @apply_forward_hook
    @torch.no_grad()
    def prior_and_picture(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch tokens decoder_width"], Float[Tensor, "batch 3 side side"]]:
        """`prior` and `reconstruct` for the price of the second."""
        return self.imagine(image, hole)[:2]

    @apply_forward_hook
    @torch.no_grad()
    def imagine(self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]) -> Idea:
        """Prior, picture at the model's size and picture at the given size, all of one pass."""
        sight = self.look(image, hole)
        prior = self._prior_of(sight)
        tokens = self._run(prior, first=self.config["prior_layer"], last=len(self.decoder_blocks))
        imagined = self.denormalise(self.unpatchify(self._pixels_of(tokens, sight)))
        shown = torch.where(sight.missing, imagined, self.denormalise(sight.pixels.to(imagined)))
        if self.config["residual"]:
            # What is added is smooth, the fill is sharp at the rim: enlarged alone, it costs the rim nothing.
            added = imagined - self.denormalise(self._first_fill(sight)[0]).to(imagined)
            filled = first_fill(image, hole).to(imagined) + _enlarged(added, image)
        else:
            filled = _enlarged(imagined, image)
        filled = torch.where(hole, filled.clamp(0, 1), image.to(filled))
        return Idea(prior[:, self._prefix :], shown.clamp(0, 1), filled)

    def look(self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]) -> Sight:
        """Bring pictures and holes to the model's size without letting a single missing pixel through.

        The hole is blanked before the resizing and every model pixel whose area touches it stays blank, so an
        averaged edge cannot carry the removed object's colour. (The release resizes first; at 256 px both agree.)
        """
        side = self.config["image_size"]
        known = torch.where(hole, 0.0, (image - self.mean.to(image)) / self.std.to(image))
        missing = hole
        if image.shape[-2:] != (side, side):
            known = functional.interpolate(known, size=(side, side), mode="area")
            missing = functional.interpolate(hole.to(image.dtype), size=(side, side), mode="area") > 0
        pixels = torch.where(missing, 0.0, known).to(self.dtype)
        return Sight(pixels, missing, self.tokens_touched(missing))

    def tokens_touched(self, missing: Bool[Tensor, "batch 1 side side"]) -> Bool[Tensor, "batch tokens"]:
        """Which tokens hold at least one missing pixel."""
        return functional.max_pool2d(missing.float(), self.config["patch_size"]).flatten(1) > 0

    def embed_for_decoder(
        self, sight: Sight, *, visible: int | None = None
    ) -> Float[Tensor, "batch tokens_and_cls decoder_width"]:
        """Encode what is visible and lay it out for the decoder, mask tokens in the hidden places.

        Args:
            sight: what may be seen. `hidden` may hide more tokens than the hole touches (training does).
            visible: visible tokens in every picture, where the caller knows; spares a look at the batch.
        """
        keep, padding = _visible_first(sight.hidden, visible, blind_is_fine=self.cls_token is not None)
        encoded = self.decoder_embed(self._encode(sight.pixels, keep, padding))
        cls, encoded = encoded[:, : self._prefix], encoded[:, self._prefix :]
        tokens = self.mask_token.to(encoded).expand(*sight.hidden.shape, -1)
        tokens = tokens.scatter(1, keep[..., None].expand_as(encoded), encoded)
        tokens = torch.where(sight.hidden[..., None], self.mask_token.to(encoded), tokens)
        if self.config["residual"]:
            tokens = self._tell_first_fill(tokens, sight)
        else:
            tokens = self._blend_partly_hidden(tokens, sight)
        tokens = tokens + self.decoder_pos_embed.to(encoded)
        return torch.cat([cls, tokens], dim=1)

    def predict(self, sight: Sight, *, visible: int | None = None) -> Float[Tensor, "batch tokens patch_values"]:
        """Normalised RGB of every token in (row, column, colour) order: what MAE is trained to predict."""
        tokens = self.embed_for_decoder(sight, visible=visible)
        return self._pixels_of(self._run(tokens, first=0, last=len(self.decoder_blocks)), sight)

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        also_hidden: Bool[Tensor, "batch tokens"] | None = None,
        visible: int | None = None,
    ) -> Float[Tensor, "batch tokens patch_values"]:
        """`predict` for pictures and holes of any size, with more tokens hidden than the hole touches if asked."""
        sight = self.look(image, hole)
        if also_hidden is not None:
            sight = sight._replace(hidden=sight.hidden | also_hidden)
        return self.predict(sight, visible=visible)

    def patchify(self, pixels: Float[Tensor, "batch colours side side"]) -> Float[Tensor, "batch tokens patch_values"]:
        """Pixels of each token, flattened in (row, column, colour) order."""
        patch, grid = self.config["patch_size"], self.grid
        blocks = pixels.unflatten(3, (grid, patch)).unflatten(2, (grid, patch))
        return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(
        self, patches: Float[Tensor, "batch tokens patch_values"]
    ) -> Float[Tensor, "batch colours side side"]:
        """The inverse of `patchify`."""
        patch, grid = self.config["patch_size"], self.grid
        blocks = patches.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
        return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def denormalise(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
        """ImageNet-normalised RGB to [0, 1] (not clamped)."""
        return pixels * self.std.to(pixels) + self.mean.to(pixels)

    @property
    def _prefix(self) -> int:
        return 0 if self.cls_token is None else 1

    def _encode(
        self,
        pixels: Float[Tensor, "batch 3 side side"],
        keep: Int[Tensor, "batch kept"],
        padding: Bool[Tensor, "batch kept"] | None,
    ) -> Float[Tensor, "batch kept_and_cls width"]:
        """Encode the kept tokens only: the same as letting nobody attend to the others, and faster."""
        tokens = self.patch_embed(pixels) + self.pos_embed.to(pixels)
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.to(tokens).expand(len(tokens), -1, -1), tokens], dim=1)
        attend = None if padding is None else ~functional.pad(padding, (self._prefix, 0))[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=attend)
        return self.norm(tokens)

    def _blend_partly_hidden(
        self, tokens: Float[Tensor, "batch tokens decoder_width"], sight: Sight
    ) -> Float[Tensor, "batch tokens decoder_width"]:
        """The release's extra path: the known pixels of a partly missing token may reach the decoder, by 1 - alpha."""
        share = functional.avg_pool2d(sight.missing.float(), self.config["patch_size"]).flatten(1)
        partly = sight.hidden & (share > 0) & (share < 1)
        seen = self.decoder_patch_embed(torch.cat([sight.pixels, sight.missing.to(sight.pixels)], dim=1))
        alpha = self.alpha.clamp(0, 1).to(tokens)
        return torch.where(partly[..., None], tokens * alpha + seen.to(tokens) * (1 - alpha), tokens)

    def _tell_first_fill(
        self, tokens: Float[Tensor, "batch tokens decoder_width"], sight: Sight
    ) -> Float[Tensor, "batch tokens decoder_width"]:
        """Hidden tokens learn what the smoothest fill shows in their place, and which of its pixels are known."""
        fill, gone = self._first_fill(sight)
        told = self.decoder_patch_embed(torch.cat([fill, gone.to(fill)], dim=1)).to(tokens)
        return torch.where(sight.hidden[..., None], tokens + told, tokens)

    def _first_fill(self, sight: Sight) -> tuple[Float[Tensor, "batch 3 side side"], Bool[Tensor, "batch 1 side side"]]:
        """The smoothest fill in normalised pixels, and what it fills: tokens hidden on top of a hole are gone."""
        share = functional.avg_pool2d(sight.missing.float(), self.config["patch_size"])
        hidden = sight.hidden.view(share.shape) & (share == 0)
        size = (self.config["image_size"], self.config["image_size"])
        gone = sight.missing | (functional.interpolate(hidden.float(), size=size) > 0)
        return first_fill(sight.pixels, gone, nothing_known=0.0), gone

    def _prior_of(self, sight: Sight) -> Float[Tensor, "batch tokens_and_cls decoder_width"]:
        features = self._run(self.embed_for_decoder(sight), first=0, last=self.config["prior_layer"])
        if not torch.isfinite(features).all():
            raise MaeOutputError("The MAE prior is not finite; the weights or their precision are broken, reload them.")
        return features

    def _run(
        self, tokens: Float[Tensor, "batch tokens_and_cls decoder_width"], *, first: int, last: int
    ) -> Float[Tensor, "batch tokens_and_cls decoder_width"]:
        for block in self.decoder_blocks[first:last]:
            tokens = block(tokens)
        return tokens

    def _pixels_of(
        self, tokens: Float[Tensor, "batch tokens_and_cls decoder_width"], sight: Sight
    ) -> Float[Tensor, "batch tokens patch_values"]:
        said = self.decoder_pred(self.decoder_norm(tokens[:, self._prefix :]))
        return said + self.patchify(self._first_fill(sight)[0]).to(said) if self.config["residual"] else said

    def _initialise(self) -> None:
        """MAE's own start: Xavier for every matrix, patches flattened; a good start matters when trained from zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embed in (self.patch_embed, self.decoder_patch_embed):
            nn.init.xavier_uniform_(embed.proj.weight.data.flatten(1))
        for token in (self.cls_token, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=INIT_STD)
        if self.config["residual"]:
            nn.init.zeros_(self.decoder_pred.weight)


def _enlarged(picture: Tensor, like: Tensor) -> Tensor:
    size = (like.shape[-2], like.shape[-1])
    return functional.interpolate(picture, size=size, mode="bilinear", align_corners=False)


class MaeSizeError(ValueError):
    """Sizes of a MAE that do not fit each other."""


class MaeOutputError(ArithmeticError):
    """The MAE computed something that is not a number."""


def _refuse_odd_sizes(image_size: int, patch_size: int, prior_layer: int, decoder_depth: int) -> None:
    if image_size % patch_size:
        raise MaeSizeError(f"Patches of {patch_size} px do not tile {image_size} px; choose a divisor.")
    if not 1 <= prior_layer <= decoder_depth:
        raise MaeSizeError(f"The prior layer is {prior_layer}; choose 1 to {decoder_depth}, the decoder's depth.")


def _blocks(width: int, heads: int, depth: int) -> nn.ModuleList:
    # timm's LayerNorm has MAE's epsilon as its default (a test holds it to that).
    return nn.ModuleList(Block(width, heads, MLP_RATIO, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))


def sincos_positions(width: int, grid: int) -> Float[Tensor, "1 tokens width"]:
    """Fixed sine-cosine positions in MAE's layout: the first half of the features tells x, the second y."""
    return get_2d_sincos_pos_embed(width, grid, base_size=grid).float()[None]


def _visible_first(
    hidden: Bool[Tensor, "batch tokens"], visible: int | None, *, blind_is_fine: bool
) -> tuple[Int[Tensor, "batch kept"], Bool[Tensor, "batch kept"] | None]:
    """Indices of the visible tokens, padded with hidden ones to the batch's largest count, and where padding is.

    A picture without a single visible token attends to its padding, unless there is a cls token to attend to
    (`blind_is_fine`): missing pixels in it are zero, nothing read from it survives, and nothing becomes NaN.
    """
    counts = (~hidden).sum(1)
    kept = visible if visible is not None else max(1, int(counts.max()))
    keep = torch.argsort(hidden.to(torch.uint8), dim=1, stable=True)[:, :kept]
    if visible is not None:
        return keep, None
    padding = hidden.gather(1, keep) & ((counts > 0) | blind_is_fine)[:, None]
    return keep, padding if bool(padding.any()) else None
