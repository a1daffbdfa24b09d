"""PNG files of 16 bits a channel, which Pillow reads and cannot write."""

import struct
import zlib

import numpy as np


def png_16(pixels: np.ndarray, colour_type: int, transparent: int | None = None) -> bytes:
    """Return a PNG file.

    Args:
        pixels: Values 0 to 65535, (H, W) or (H, W, C).
        colour_type: PNG's: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha.
        transparent: Of an RGB picture, the value of all three channels that counts as transparent.
    """
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    blocks = _block(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    if transparent is not None:
        blocks += _block(b"tRNS", struct.pack(">3H", *[transparent] * 3))
    blocks += _block(b"IDAT", zlib.compress(rows)) + _block(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + blocks


def _block(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
