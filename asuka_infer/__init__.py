"""ASUKA inpainting: images in, images out.

Importing this package costs milliseconds and never loads torch; a method loads what it needs when it is asked for.
"""

from asuka_infer.inpainter import SILENT, Cancelled, Inpainter, Watch
from asuka_infer.request import InpaintRequest, InpaintResult, RequestError

__all__ = [
    "SILENT",
    "Cancelled",
    "InpaintRequest",
    "InpaintResult",
    "Inpainter",
    "RequestError",
    "Watch",
]
