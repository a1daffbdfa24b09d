"""Examining bytes, and the processes that do it. The kinds of files are in tests/faults."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_files import png_16

from agetf_pipeline.config.ingest import ImageLimits
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.data import examine_pool
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.images import read_rgb, resize_rgb
from agetf_pipeline.data.probe import Facts, Limits, Rejection, has_extension_of, is_grey, probe
from agetf_pipeline.data.quarantine import REASONS

MAGICS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBP", b"BM"]


def encoded(image_format: str, mode: str = "RGB", size=(64, 48), **options) -> bytes:
    columns = np.linspace(0, 255, size[0], dtype=np.uint8)
    image = Image.fromarray(np.tile(columns, (size[1], 1))).convert(mode)
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def accepted(data: bytes, limits: Limits | None = None) -> Facts:
    result = probe(data, limits or Limits())
    assert not isinstance(result, Rejection), result
    return result[0]


def refused(data: bytes, limits: Limits | None = None) -> str:
    result = probe(data, limits or Limits())
    assert isinstance(result, Rejection)
    assert result.reason in REASONS
    return result.reason


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_formats_that_are_read(image_format):
    facts = accepted(encoded(image_format))
    assert (facts.format, facts.width_px, facts.height_px) == (image_format, 64, 48)
    assert facts.is_grey


def test_the_limits_of_the_config_are_those_of_the_worker():
    assert ImageLimits().model_dump(exclude={"max_memory_mib"}) == vars(Limits())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :20] = 255
    # As the EXIF standard says where the stored row 0 and column 0 lie.
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), upright)
    flags = accepted((tmp_path / "a.png").read_bytes()).flags
    assert ("exif_rotated" in flags) == (orientation != 1)


def test_broken_exif_harms_nobody():
    data = encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(range(64)))
    assert accepted(data).flags == ("not_square",)


def test_limits_hold_on_the_header():
    assert refused(encoded("PNG"), Limits(max_pixels=64 * 48 - 1)) == "too_many_pixels"
    assert refused(encoded("PNG"), Limits(min_side_px=49)) == "too_small"
    assert refused(encoded("PNG"), Limits(max_aspect=1.3)) == "extreme_aspect"


def test_transparency_of_palettes_and_16_bit_counts_too():
    assert refused(encoded("PNG", "P", transparency=0)) == "transparent"
    image = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    assert "converted_16_bit" in accepted(stream.getvalue()).flags


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_never_accepted(image_format):
    data = encoded(image_format, size=(40, 40))
    for end in range(0, len(data) - 20, 7):
        assert refused(data[:end]) in ("truncated", "empty", "not_an_image", "unreadable")


@given(st.binary(max_size=200), st.sampled_from(MAGICS))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(data, magic):
    assert isinstance(probe(magic + data, Limits()), Rejection)


def test_grey_is_seen_through_compression_and_sepia_is_not_grey():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (90, 90, 1), dtype=np.uint8), 3, axis=2)
    noisy = (grey.astype(int) + rng.integers(-6, 7, grey.shape)).clip(0, 255).astype(np.uint8)
    sepia = (grey * np.array([1.0, 0.9, 0.7])).astype(np.uint8)
    assert is_grey(grey)
    assert is_grey(noisy)
    assert not is_grey(sepia)


def test_extensions():
    assert has_extension_of("A.JPEG", "JPEG")
    assert not has_extension_of("a.png", "JPEG")


def test_resizing_is_to_a_square_and_leaves_its_own_size_alone():
    rgb = np.zeros((10, 20, 3), np.uint8)
    assert resize_rgb(rgb, 16).shape == (16, 16, 3)
    square = np.zeros((16, 16, 3), np.uint8)
    assert resize_rgb(square, 16) is square


def pool(num_workers: int = 2, max_decode_s: float = 60.0) -> ExaminePool:
    return ExaminePool(ImageLimits(), 64, num_workers, max_decode_s)


def test_answers_come_in_the_order_of_the_requests(tmp_path):
    requests, hashes = [], []
    for width in range(32, 80):
        data = encoded("PNG", size=(width, 40))
        (tmp_path / f"{width}.png").write_bytes(data)
        requests.append(Request(tmp_path / f"{width}.png"))
        hashes.append(hash_bytes(data))
    with pool() as examiners:
        answers = examiners.examine(requests)
        again = examiners.examine(requests[:3])
        assert examiners.examine([]) == []
    assert [answer["sha256"] for answer in answers] == hashes
    assert [answer["width_px"] for answer in answers] == list(range(32, 80))
    assert again == answers[:3]


def test_a_decoder_that_takes_too_long_is_stopped(tmp_path):
    # 36 million pixels in a few kilobytes: half a second of work on any machine.
    plain = Image.new("L", (6000, 6000), 128)
    plain.save(tmp_path / "slow.png")
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    with pool(1, max_decode_s=0.05) as examiners:
        (stuck,) = examiners.examine([Request(tmp_path / "slow.png")])
    assert stuck["reason"] == "decoder_crash"
    assert "more than 0.05 s" in stuck["detail"]
    with pool(1) as examiners:
        (fine,) = examiners.examine([Request(tmp_path / "a.png")])
    assert fine["reason"] is None


def test_a_pipe_is_no_file_to_wait_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pool(1) as examiners:
        (answer,) = examiners.examine([Request(tmp_path / "pipe")])
    assert (answer["reason"], "a pipe" in answer["detail"]) == ("unreadable", True)


def test_processes_that_cannot_start_are_not_blamed_on_a_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(examine_pool, "_ROOT", Path("/nowhere"))
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['agetf_pipeline'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pool(1) as examiners, pytest.raises(StageError, match="decoding process to start"):
        examiners.examine([Request(tmp_path / "a.png")])


@pytest.mark.parametrize(("colour", "reason"), [(0x1234, "transparent"), (0xFFFF, None)])
def test_the_transparent_colour_of_a_16_bit_png_is_compared_with_all_its_bits(colour, reason):
    pixels = np.full((64, 64, 3), 0x1234, np.uint16)
    found = probe(png_16(pixels, 2, transparent=colour), Limits())
    assert (found.reason if isinstance(found, Rejection) else None) == reason
