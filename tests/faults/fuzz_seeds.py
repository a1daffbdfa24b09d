"""Small valid pictures of every kind: what the mutations start from."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

WIDTH, HEIGHT = 44, 36
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG, 8.2: first column, first row, columns apart, rows apart of the seven passes.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def photo(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    bits: int,
    colour_type: int,
    interlaced: bool = False,
    before: bytes = b"",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> bytes:
    """A PNG of any kind that the format has, written by hand: Pillow writes only some."""
    width, height = size
    values = np.random.default_rng(bits + colour_type).integers(
        0, 2 ** min(bits, 4), (height, width, _CHANNELS[colour_type])
    )
    if colour_type in (4, 6):
        values[..., -1] = 2**bits - 1
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(
        _rows(values[y::dy, x::dx], bits) for x, y, dx, dy in passes if values[y::dy, x::dx].size
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced))
    palette = png_chunk(b"PLTE", bytes(range(48))) if colour_type == 3 else b""
    return (
        SIGNATURE
        + png_chunk(b"IHDR", header)
        + palette
        + before
        + png_chunk(b"IDAT", zlib.compress(raw))
        + png_chunk(b"IEND", b"")
    )


def _rows(values: np.ndarray, bits: int) -> bytes:
    lines = values.reshape(len(values), -1)
    if bits == 16:
        return b"".join(b"\0" + line.astype(">u2").tobytes() for line in lines)
    digits = np.unpackbits(lines.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return b"".join(b"\0" + np.packbits(line.ravel()).tobytes() for line in digits)


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "a description"
    return block.tobytes()


def accepted_seeds() -> dict[str, bytes]:
    """By name, pictures of the three formats; a few of them are refused for what they show."""
    rgb = photo()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "plain")
    text.add_text("Packed", "zipped " * 40, zip=True)
    text.add_itxt("Intern", "\u00e9" * 30, "fr", "titre", zip=True)
    # An EXIF block with a thumbnail, as cameras write it.
    thumbnail = encode(photo(9, 32, 24), "JPEG")
    with_thumbnail = (
        b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 14)
        + struct.pack("<H", 3)
        + struct.pack("<HHII", 0x0103, 3, 1, 6)
        + struct.pack("<HHII", 0x0201, 4, 1, 56)
        + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
        + struct.pack("<I", 0) + thumbnail
    )  # fmt: skip
    seeds = {
        "jpeg baseline": encode(rgb, "JPEG"),
        "jpeg 4:4:4": encode(rgb, "JPEG", subsampling=0, quality=95),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg grey": encode(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "jpeg exif": encode(rgb, "JPEG", exif=exif()),
        "jpeg thumbnail": encode(rgb, "JPEG", exif=with_thumbnail),
        "jpeg restarts": encode(rgb, "JPEG", restart_marker_blocks=2),
        "jpeg icc": encode(rgb, "JPEG", icc_profile=icc),
        "jpeg mpo": encode(rgb, "MPO", save_all=True, append_images=[photo(1)]),
        "png text": encode(rgb, "PNG", pnginfo=text),
        "png icc": encode(rgb, "PNG", icc_profile=icc),
        "png exif": encode(rgb, "PNG", exif=exif(8)),
        "png apng": encode(rgb, "PNG", save_all=True, append_images=[photo(1), photo(2)]),
        "png one frame": encode(rgb, "PNG", save_all=True, default_image=False),
        "png trns colour": png(8, 2, before=png_chunk(b"tRNS", struct.pack(">3H", 200, 1, 2))),
        "png trns palette": png(4, 3, before=png_chunk(b"tRNS", bytes([255] * 16))),
        "webp lossy": encode(rgb, "WEBP"),
        "webp lossless": encode(rgb, "WEBP", lossless=True),
        "webp lossy alpha": encode(rgb.convert("RGBA"), "WEBP", exact=True),
        "webp see-through": encode(Image.merge("RGBA", (*rgb.split(), rgb.split()[0])), "WEBP"),
        "webp grey": encode(rgb.convert("L"), "WEBP"),
        "webp exif icc": encode(rgb, "WEBP", exif=exif(3), icc_profile=icc),
        "webp animated": encode(rgb, "WEBP", save_all=True, append_images=[photo(1)]),
    }
    kinds = [(b, 0) for b in (1, 2, 4, 8, 16)] + [(b, 3) for b in (1, 2, 4, 8)]
    for bits, colour in [*kinds, (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]:
        seeds[f"png {bits} bit type {colour}"] = png(bits, colour)
    for bits, colour in ((1, 0), (8, 2), (16, 6), (4, 3)):
        seeds[f"png interlaced {bits} bit type {colour}"] = png(bits, colour, interlaced=True)
    return seeds


def foreign_seeds() -> dict[str, bytes]:
    """By name, pictures of the formats that are not read."""
    rgb = photo()
    box = struct.pack(">I", 24) + b"ftyp"
    return {
        "gif": encode(rgb, "GIF"),
        "gif animated": encode(rgb, "GIF", save_all=True, append_images=[photo(1)]),
        "bmp": encode(rgb, "BMP"),
        "tiff": encode(rgb, "TIFF"),
        "icon": encode(rgb, "ICO"),
        "jp2": encode(rgb, "JPEG2000"),
        "avif": encode(rgb, "AVIF"),
        "heic header": box + b"heic\0\0\0\0mif1heic" + bytes(200),
        "html": b"<!doctype html><html><img src=x></html>" * 4,
    }


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG before its first scan: marker, payload; then 0 and all the rest."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + max(2, length)
    yield 0, data[position:]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG: kind, data."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP file: kind, data."""
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
