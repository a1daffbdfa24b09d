"""Safe examination of one file's bytes: what it is, or why it is not taken.

The cheap and certain checks come first: nothing is decoded before its header has passed the limits.
Runs in the decoding processes (`agetf_pipeline.data.examine_worker`), so it imports little.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.data.images import FORMATS, open_picture, orientation_of, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_GREY_DIFFERENCE = 8
_GREY_PX = 24  # averages the noise of compression away, and leaves lips and eyes
_SQUARE_ASPECT = 1.05
# Encoders write ten or so; a scan may cost two bytes, and decoding it as much as the whole picture.
_MAX_SCANS = 64
# What ends a scan: any marker but restarts; 0xFF00 is a byte of the data, 0xFFFF only fills.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF or camera raw"),
    (b"MM\x00*", "TIFF or camera raw"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "Windows icon"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
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


@dataclass(frozen=True)
class Rejection:
    """Why a file is not taken: a word of `agetf_pipeline.data.quarantine.REASONS`, a sentence."""

    reason: str
    detail: str


def probe(data: bytes, limits: Limits) -> "tuple[Facts, np.ndarray] | Rejection":
    """Examine and decode one file.

    Args:
        data: The file's bytes.
        limits: What is accepted.

    Returns:
        What the image is, with its upright pixels, uint8 (H, W, 3), RGB; or why it is not taken.
    """
    from PIL.Image import DecompressionBombError

    if len(data) > limits.max_bytes:
        return too_many_bytes(len(data), limits.max_bytes)
    kind = sniff(data)
    if isinstance(kind, Rejection):
        return kind
    if kind == "JPEG" and count_scans(data, _MAX_SCANS) > _MAX_SCANS:
        return Rejection(
            "decompression_bomb",
            f"More than {_MAX_SCANS} scans over the same pixels, as no camera or program writes "
            "them: decoding it would take excessive time. Save the picture anew.",
        )
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
        if "truncated" in str(error) or _is_cut(data, kind):
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


def count_scans(data: bytes, enough: int) -> int:
    """Count the scans of a JPEG's first picture, at most one more than `enough`.

    Source: ITU-T T.81, annex B: markers, and segments with their length in two bytes.
    """
    num_scans, position = 0, 2
    while num_scans <= enough and (found := _MARKER.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:  # end of image
            break
        if marker in (0x01, 0xD8) or position + 2 > len(data):  # without a segment
            continue
        num_scans += marker == 0xDA  # start of scan
        position += int.from_bytes(data[position : position + 2], "big")
    return num_scans


def sniff(data: bytes) -> str | Rejection:
    """Return the format that the first bytes show (JPEG, PNG or WEBP), or why it is none."""
    if not data:
        return Rejection("empty", "The file has no bytes: copy it again.")
    kind = next((name for magic, name in _FORMATS if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WEBP"
    if kind is None and data[4:8] == b"ftyp":
        kind = _BRANDS.get(data[8:12], "MP4 or another film")
    if kind in FORMATS:
        return kind
    if kind == "GIF" and _count_gif_frames(data) > 1:
        return Rejection("animated", "An animated GIF: save the frame you want as PNG or JPEG.")
    if kind is not None:
        return Rejection("unsupported_format", f"The content is {kind}: save it as PNG or JPEG.")
    return Rejection("not_an_image", _describe_foreign(data))


def has_extension_of(name: str, image_format: str) -> bool:
    """Whether a file's name ends as its format's names do."""
    return name.lower().endswith(_EXTENSIONS[image_format])


def is_grey(rgb: np.ndarray) -> bool:
    """Whether a picture, uint8 (H, W, 3), is grey but for the noise of compression."""
    from PIL import Image as PillowImage

    small = PillowImage.fromarray(rgb).resize((_GREY_PX, _GREY_PX), PillowImage.Resampling.BOX)
    values = np.asarray(small).astype(np.int16)
    return int((values.max(axis=2) - values.min(axis=2)).max()) <= _MAX_GREY_DIFFERENCE


def _count_gif_frames(data: bytes) -> int:
    """Count the image blocks of a GIF by walking its block headers; nothing is decoded."""

    def table_bytes(packed: int) -> int:
        return 3 << ((packed & 7) + 1) if packed & 0x80 else 0

    num_frames = 0
    with suppress(IndexError):  # a file that ends early has the frames counted so far
        position = 13 + table_bytes(data[10])
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x2C:
                num_frames += 1
                position += 11 + table_bytes(data[position + 9])
            else:
                position += 2
            while data[position]:
                position += data[position] + 1
            position += 1
    return num_frames


def _describe_foreign(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "A Git LFS pointer, not the picture itself: fetch the files with `git lfs pull`."
    if head.startswith((b"<!doctype", b"<html")):
        return "An HTML page, as a failed download leaves it: download the picture again."
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or a vector drawing, not a photograph."
    try:
        text = data[:4096].decode("utf-8", errors="strict" if len(data) <= 4096 else "ignore")
        if all(character.isprintable() or character in "\t\r\n\f" for character in text):
            return "A text file, not a picture."
    except UnicodeDecodeError:
        pass
    return "The content is not that of a JPEG, PNG or WebP file."


def _check_header(image: "Image", limits: Limits) -> Rejection | None:
    width, height = image.size
    if width * height > limits.max_pixels:
        return Rejection(
            "too_many_pixels",
            f"The header says {width} x {height} px, over the limit of {limits.max_pixels} "
            "(ingest.limits.max_pixels); it was not decoded.",
        )
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


def _decode(image: "Image", kind: str, data: bytes) -> "tuple[Facts, np.ndarray] | Rejection":
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
    if orientation_of(image) != 1:
        flags.append("exif_rotated")
    rgb = np.asarray(to_rgb(image))
    height, width = rgb.shape[:2]
    if max(width, height) > _SQUARE_ASPECT * min(width, height):
        flags.append("not_square")
    facts = Facts(
        format=kind,
        mode=mode,
        stored_width_px=stored_width,
        stored_height_px=stored_height,
        width_px=width,
        height_px=height,
        is_grey=is_grey(rgb),
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


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the file ends before its format's end mark."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return b"IEND" not in data
    return len(data) < 8 + int.from_bytes(data[4:8], "little")
