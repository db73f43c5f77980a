"""The smallest embedded model that has every part."""

from asuka_infer.asuka.mini import AlignmentSizes, MaeSizes, MiniConfig, UnetSizes, UnshuffleSizes

TINY = MiniConfig(
    pixels=64,
    mae=MaeSizes(
        image_size=32, patch_size=8, width=32, depth=2, heads=2, decoder_width=24, decoder_depth=2, decoder_heads=2,
        prior_layer=1,
    ),
    alignment=AlignmentSizes(condition_width=32, depth=1),
    unet=UnetSizes(widths=(16, 32), attention=(False, True), heads=2, norm_groups=8),
    vae=UnshuffleSizes(
        encoder_widths=(16, 24), encoder_blocks=(1, 1), decoder_widths=(8, 12, 16, 24), decoder_blocks=(1, 1)
    ),
)  # fmt: skip
