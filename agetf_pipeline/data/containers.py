"""What a file's bytes say of themselves, read without any decoder: format, size, scans, its end."""

import re
from contextlib import suppress
from dataclasses import dataclass

from agetf_pipeline.data.images import FORMATS

MAX_SCANS = 64
"""Of a JPEG. Encoders write ten or so; a scan may cost ten bytes, and decoding it as much as the
whole picture."""

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


@dataclass(frozen=True)
class Rejection:
    """Why a file is not taken: a word of `agetf_pipeline.data.quarantine.REASONS`, a sentence."""

    reason: str
    detail: str


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


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Return width and height as the first chunk of a WebP file says them, None where it does not.

    Source: RFC 9649, sections 2.5 to 2.7, and RFC 6386, section 9.1.
    """
    kind, content = data[12:16], data[20:30]
    if len(content) < 10:
        return None
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(content[i : i + 3], "little") for i in (4, 7))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(content[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return width, height
    return None


def is_cut(data: bytes, kind: str) -> bool:
    """Whether the file ends before its format's end mark."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return b"IEND" not in data
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


def _count_gif_frames(data: bytes) -> int:
    """Count the image blocks of a GIF, up to two, by its block headers; nothing is decoded."""

    def table_bytes(packed: int) -> int:
        return 3 << ((packed & 7) + 1) if packed & 0x80 else 0

    num_frames = 0
    with suppress(IndexError):  # a file that ends early has the frames counted so far
        position = 13 + table_bytes(data[10])
        while num_frames < 2 and data[position] in (0x21, 0x2C):
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
