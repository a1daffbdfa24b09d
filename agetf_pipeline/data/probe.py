"""Safe examination of one file's bytes: what it is, or why it is not taken.

The cheap and certain checks come first: nothing is decoded before its header has passed the limits.
Runs in the decoding processes (`agetf_pipeline.data.examine_worker`), so it imports little.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.data.containers import (
    MAX_SCANS,
    Rejection,
    count_scans,
    is_cut,
    sniff,
    webp_canvas,
)
from agetf_pipeline.data.images import open_picture, orientation_of, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_GREY_DIFFERENCE = 8
_GREY_PX = 24  # averages the noise of compression away, and leaves lips and eyes
_STRIP = 1  # of those pixels, to each side of the middle
_ROUNDING = 4  # more than a part of a picture is made small differently from the whole
_SQUARE_ASPECT = 1.05
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
}


@dataclass(frozen=True)
class Limits:
    """What is read at all. The names and defaults of `agetf_pipeline.config.ingest.ImageLimits`.

    A class of its own, because loading the configuration takes longer than decoding many images.
    """

    max_pixels: int = 40_000_000
    max_bytes: int = 64_000_000
    min_side_px: int = 32
    max_aspect: float = 4.0


@dataclass(frozen=True)
class Facts:
    """What an accepted image is. Sizes in pixels; `width_px` and `height_px` are upright."""

    format: str
    mode: str
    stored_width_px: int
    stored_height_px: int
    width_px: int
    height_px: int
    is_grey: bool
    flags: tuple[str, ...]


def probe(data: bytes, limits: Limits) -> "tuple[Facts, np.ndarray] | Rejection":
    """Examine and decode one file; as `probe_picture`, with the pixels as an array.

    Returns:
        What the image is, with its upright pixels, uint8 (H, W, 3), RGB; or why it is not taken.
    """
    found = probe_picture(data, limits)
    return found if isinstance(found, Rejection) else (found[0], np.asarray(found[1]))


def probe_picture(data: bytes, limits: Limits) -> "tuple[Facts, Image] | Rejection":
    """Examine and decode one file.

    All of its pixels are decoded, at full size: whether the file is whole, nothing less can tell.

    Args:
        data: The file's bytes.
        limits: What is accepted.

    Returns:
        What the image is, with the upright RGB picture, which holds its pixels; or why it is not
        taken.
    """
    from PIL.Image import DecompressionBombError

    if len(data) > limits.max_bytes:
        return too_many_bytes(len(data), limits.max_bytes)
    kind = sniff(data)
    if isinstance(kind, Rejection):
        return kind
    if kind == "JPEG" and count_scans(data, MAX_SCANS) > MAX_SCANS:
        return Rejection(
            "decompression_bomb",
            f"More than {MAX_SCANS} scans over the same pixels, as no camera or program writes "
            "them: decoding it would take excessive time. Save the picture anew.",
        )
    # Pillow's reader makes room for a WebP's whole canvas when it is opened, before it says a size.
    canvas = webp_canvas(data) if kind == "WEBP" else None
    if canvas is not None and canvas[0] * canvas[1] > limits.max_pixels:
        return _too_many_pixels(*canvas, limits)
    try:
        with open_picture(data) as image:
            rejection = _check_header(image, limits)
            if rejection is not None:
                return rejection
            return _decode(image, kind, data)
    except MemoryError:
        return out_of_memory()
    except DecompressionBombError as error:
        return Rejection("too_many_pixels", f"{error}; it was not decoded.")
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        if "MAX_TEXT" in str(error) or "memory used in text chunks" in str(error):
            return Rejection(
                "decompression_bomb",
                f"Text or a colour profile in it unpacks to more than is sensible ({error}).",
            )
        if "truncated" in str(error) or is_cut(data, kind):
            return Rejection(
                "truncated", f"The {kind} file ends before the picture does ({error})."
            )
        return Rejection(
            "unreadable", f"The {kind} file is damaged: {error or type(error).__name__}."
        )


def too_many_bytes(num_bytes: int, max_bytes: int) -> Rejection:
    """Return why a file of so many bytes is not taken."""
    return Rejection(
        "too_many_bytes",
        f"{num_bytes} bytes, over the limit of {max_bytes} (ingest.limits.max_bytes).",
    )


def out_of_memory() -> Rejection:
    """Return why a file is not taken that the decoding process has no memory for."""
    return Rejection(
        "decoder_crash",
        "Decoding it takes more memory than it may use (ingest.limits.max_memory_mib).",
    )


def has_extension_of(name: str, image_format: str) -> bool:
    """Whether a file's name ends as its format's names do."""
    return name.lower().endswith(_EXTENSIONS[image_format])


def is_grey(rgb: np.ndarray) -> bool:
    """Whether a picture, uint8 (H, W, 3), is grey but for the noise of compression."""
    from PIL import Image as PillowImage

    return _is_grey(PillowImage.fromarray(rgb))


def _is_grey(rgb: "Image") -> bool:
    """Whether an RGB picture is grey; most that are not show it in a strip across their middle."""
    middle = rgb.height * _STRIP / _GREY_PX
    strip = (0, rgb.height / 2 - middle, rgb.width, rgb.height / 2 + middle)
    if _greatest_difference(rgb, 2 * _STRIP, strip) > _MAX_GREY_DIFFERENCE + _ROUNDING:
        return False
    return _greatest_difference(rgb, _GREY_PX, None) <= _MAX_GREY_DIFFERENCE


def _greatest_difference(
    rgb: "Image", num_rows: int, box: tuple[float, float, float, float] | None
) -> int:
    """Return how far the channels lie apart, at most, in a picture made small."""
    from PIL.Image import Resampling

    small = rgb.resize((_GREY_PX, num_rows), Resampling.BOX, box)
    values = np.asarray(small).astype(np.int16)
    return int((values.max(axis=2) - values.min(axis=2)).max())


def _too_many_pixels(width: int, height: int, limits: Limits) -> Rejection:
    return Rejection(
        "too_many_pixels",
        f"The header says {width} x {height} px, over the limit of {limits.max_pixels} "
        "(ingest.limits.max_pixels); it was not decoded.",
    )


def _check_header(image: "Image", limits: Limits) -> Rejection | None:
    width, height = image.size
    if width * height > limits.max_pixels:
        return _too_many_pixels(width, height, limits)
    if min(width, height) < limits.min_side_px:
        return Rejection(
            "too_small",
            f"{width} x {height} px; the shorter side must have {limits.min_side_px} px "
            "(ingest.limits.min_side_px).",
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        return Rejection(
            "extreme_aspect",
            f"{width} x {height} px; the longer side may be {limits.max_aspect:g} times the "
            "shorter (ingest.limits.max_aspect).",
        )
    # Telephones write JPEGs with further pictures behind the first (MPO): that is no animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        return Rejection(
            "animated", f"An animation of {getattr(image, 'n_frames', 0)} frames: save one as PNG."
        )
    return None


def _decode(image: "Image", kind: str, data: bytes) -> "tuple[Facts, Image] | Rejection":
    mode, (stored_width, stored_height) = image.mode, image.size
    # Before load(): Pillow takes the high byte of 16-bit colour by itself, and then forgets.
    tile = getattr(image, "tile", None)
    raw_mode = str(tile[0][3]) if tile else ""
    flags = []
    if mode.startswith("I") or "16" in raw_mode:
        flags.append("converted_16_bit")
    if image.format == "MPO":
        flags.append("first_of_several_pictures")
    image.load()
    if kind == "PNG" and b"IEND" not in data[-4096:] and b"IEND" not in data:
        return Rejection("truncated", "The PNG file ends before its end mark.")
    alpha = _lowest_alpha(image, "16" in raw_mode)
    if alpha is not None and alpha < 255:
        return Rejection(
            "transparent", "Some pixels are not opaque: save it on a background, without alpha."
        )
    if alpha is not None:
        flags.append("opaque_alpha_dropped")
    if mode in ("CMYK", "YCCK"):
        flags.append("converted_cmyk")
    if mode in ("P", "PA"):
        flags.append("converted_palette")
    if mode in ("1", "L", "LA") or mode.startswith("I"):
        flags.append("converted_grey")
    is_turned = orientation_of(image) != 1
    if is_turned:
        flags.append("exif_rotated")
    # A copy takes as long as much of the examination: it is made where something changes.
    rgb = image if image.mode == "RGB" and not is_turned else to_rgb(image)
    width, height = rgb.size
    if max(width, height) > _SQUARE_ASPECT * min(width, height):
        flags.append("not_square")
    facts = Facts(
        format=kind,
        mode=mode,
        stored_width_px=stored_width,
        stored_height_px=stored_height,
        width_px=width,
        height_px=height,
        is_grey=_is_grey(rgb),
        flags=tuple(flags),
    )
    return facts, rgb


def _lowest_alpha(image: "Image", was_16_bit: bool) -> int | None:
    """Return the lowest alpha of an image, 0-255; None where it has none.

    Args:
        image: The loaded image.
        was_16_bit: Whether its file has 16 bits a channel.
    """
    if image.mode in ("RGBA", "LA", "PA"):
        return int(np.asarray(image.getchannel("A")).min())
    if "transparency" not in image.info:
        return None
    if image.mode.startswith("I"):
        return 0 if bool((np.asarray(image) == image.info["transparency"]).any()) else 255
    if was_16_bit and image.mode == "RGB":
        # The pixels have lost their low bytes by now, the transparent colour has not.
        colour = np.array(image.info["transparency"]) >> 8
        return 0 if bool((np.asarray(image) == colour).all(axis=2).any()) else 255
    return int(np.asarray(image.convert("RGBA").getchannel("A")).min())
