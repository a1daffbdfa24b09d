"""Mutations of files: blind ones, and ones that keep the container whole to get behind it."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

from fuzz_seeds import SIGNATURE, jpeg_segments, png_chunk, png_chunks, riff_chunks

_INTERESTING = (0, 1, 2, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
                0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
_LONGEST = 200_000
_PNG_KINDS = (b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL",
              b"fdAT", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"IEND", b"IHDR", b"abCd")  # fmt: skip
_JPEG_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCA, 0xCC, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2,
                 0xED, 0xEE, 0xFE, 0xD8, 0xDC)  # fmt: skip


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One mutation of a file: one to three blind changes, or one to two that mend the container."""
    if rng.random() < 0.5 and (mending := _mending(data)) is not None:
        for _ in range(rng.choice((1, 1, 2))):
            data = mending(data, rng)
    else:
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = rng.choice(_BLIND)(data, others, rng)
    return data[:_LONGEST]


def disturb(data: bytes, rng: random.Random) -> bytes:
    """A few blind changes within one piece of data."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_BLIND[:7])(data, (), rng)
    return data


def _flip_bits(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, length = _span(data, rng, 8)
    return data[:start] + rng.randbytes(length) + data[start + length :]


def _insert(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, _ = _span(data, rng, 1)
    return data[:start] + rng.randbytes(rng.randint(1, 40)) + data[start:]


def _delete(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, length = _span(data, rng, 64)
    return data[:start] + data[start + length :]


def _repeat(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, length = _span(data, rng, 200)
    return data[:start] + data[start : start + length] * rng.choice((2, 3, 50)) + data[start:]


def _put_number(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """An interesting number, most often in the header."""
    near = 96 if rng.random() < 0.7 else len(data)
    start = rng.randrange(max(1, min(near, len(data))))
    order, size = rng.choice("<>"), rng.choice((1, 2, 4))
    value = rng.choice(_INTERESTING) & (256**size - 1)
    number = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], value)
    return data[:start] + number + data[start + size :]


def _blank(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, length = _span(data, rng, 64)
    return data[:start] + bytes([rng.choice((0, 0xFF))]) * length + data[start + length :]


def _truncate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BLIND: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip_bits, _set_bytes, _insert, _delete, _repeat, _put_number, _blank, _truncate, _splice,
)  # fmt: skip


def _span(data: bytes, rng: random.Random, longest: int) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(rng.randint(1, longest), len(data) - start)


def _mending(data: bytes) -> Callable[[bytes, random.Random], bytes] | None:
    if data.startswith(SIGNATURE):
        return _mutate_png
    if data.startswith(b"\xff\xd8\xff"):
        return _mutate_jpeg
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _mutate_webp
    return None


def _rearranged(parts: list, rng: random.Random) -> list:
    """The parts, one of them gone, twice there, or elsewhere."""
    if not parts:
        return parts
    index = rng.randrange(len(parts))
    what = rng.randrange(3)
    if what == 0:
        return parts[:index] + parts[index + 1 :]
    if what == 1:
        return parts[: index + 1] + parts[index:]
    moved = parts[:index] + parts[index + 1 :]
    moved.insert(rng.randrange(len(moved) + 1), parts[index])
    return moved


def _mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Change one chunk or their order; every checksum is right again."""
    chunks = list(png_chunks(data))
    if not chunks or rng.random() < 0.2:
        chunks = _rearranged(chunks, rng)
    else:
        index = rng.randrange(len(chunks))
        kind, content = chunks[index]
        if kind in (b"IDAT", b"fdAT", b"zTXt", b"iCCP") and rng.random() < 0.5:
            content = _repacked(content, rng)
        elif rng.random() < 0.1:
            kind = rng.choice(_PNG_KINDS)
        else:
            content = disturb(content, rng)
        chunks[index] = (kind, content)
    return SIGNATURE + b"".join(png_chunk(kind, content) for kind, content in chunks)


def _repacked(content: bytes, rng: random.Random) -> bytes:
    """Change what a zlib stream holds; the stream is whole again."""
    start = content.find(b"\x78")
    try:
        raw = zlib.decompress(content[start:]) if start >= 0 else b""
    except zlib.error:
        return disturb(content, rng)
    return content[: max(0, start)] + zlib.compress(disturb(raw, rng), 1)


def _mutate_jpeg(data: bytes, rng: random.Random) -> bytes:
    """Change one segment or their order; every length is right again."""
    segments = list(jpeg_segments(data))
    rest = segments.pop()[1]
    if not segments or rng.random() < 0.2:
        segments = _rearranged(segments, rng)
    elif rng.random() < 0.15:
        rest = disturb(rest, rng)
    else:
        index = rng.randrange(len(segments))
        marker, content = segments[index]
        if rng.random() < 0.1:
            marker = rng.choice(_JPEG_MARKERS)
        else:
            content = disturb(content, rng)
        segments[index] = (marker, content)
    written = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content
        for marker, content in ((m, c[:65533]) for m, c in segments)
    )
    return b"\xff\xd8" + written + rest


def _mutate_webp(data: bytes, rng: random.Random) -> bytes:
    """Change one chunk or their order; every size is right again."""
    chunks = list(riff_chunks(data))
    if not chunks or rng.random() < 0.2:
        chunks = _rearranged(chunks, rng)
    else:
        index = rng.randrange(len(chunks))
        kind, content = chunks[index]
        if rng.random() < 0.1:
            kind = rng.choice((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF"))
        else:
            content = disturb(content, rng)
        chunks[index] = (kind, content)
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body
