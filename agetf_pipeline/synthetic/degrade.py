"""What time and cheap cameras do to photographs: grey, blur, low resolution, coarse JPEG."""

import io
from collections.abc import Iterable

import numpy as np

GREY, BLUR, LOW_RES, JPEG = "grey", "blur", "low_res", "jpeg"
DEGRADATIONS: tuple[str, ...] = (GREY, BLUR, LOW_RES, JPEG)
"""In the order in which they are applied: the lens and the film before the file."""


def degrade(rgb: np.ndarray, kinds: Iterable[str], rng: np.random.Generator) -> np.ndarray:
    """Return a degraded copy of a picture.

    Args:
        rgb: uint8 (H, W, 3).
        kinds: Any of `DEGRADATIONS`; their order does not matter.
        rng: How strong each is; the same state gives the same picture.

    Returns:
        uint8 (H, W, 3), half as large a side with `low_res`; grey has three equal channels.

    Raises:
        ValueError: A kind is unknown.
    """
    from PIL import Image

    data, _ = encode_degraded(rgb, kinds, rng)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def encode_degraded(
    rgb: np.ndarray, kinds: Iterable[str], rng: np.random.Generator
) -> tuple[bytes, str]:
    """Return the file of a degraded picture: its bytes, and the suffix `.jpg` or `.png`.

    Grey pictures are stored with one channel. The arguments are those of `degrade`, which returns
    what this file decodes to.
    """
    from PIL import Image, ImageFilter

    wanted = set(kinds)
    if unknown := sorted(wanted - set(DEGRADATIONS)):
        raise ValueError(f"expected degradations among {DEGRADATIONS}, got {unknown}")
    # All strengths are drawn, wanted or not: one kind more does not change the others.
    blur_share, quality = rng.uniform(0.009, 0.018), int(rng.integers(9, 24))
    image = Image.fromarray(rgb)
    if GREY in wanted:
        image = image.convert("L")
    if BLUR in wanted:
        image = image.filter(ImageFilter.GaussianBlur(blur_share * image.width))
    if LOW_RES in wanted:
        half = (max(image.width // 2, 1), max(image.height // 2, 1))
        image = image.resize(half, Image.Resampling.BOX)
    if JPEG in wanted:
        return _save(image, "JPEG", quality=quality), ".jpg"
    return _save(image, "PNG", compress_level=3), ".png"


def encode_png(rgb: np.ndarray) -> bytes:
    """Return a picture, uint8 (H, W, 3), as the bytes of a PNG file."""
    from PIL import Image

    return _save(Image.fromarray(rgb), "PNG", compress_level=3)


def _save(image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
