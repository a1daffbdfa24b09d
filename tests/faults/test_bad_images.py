"""Hostile and broken input: each file's fate, and that nothing is lost."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.stages import ingest

SIZE = 48


def picture(seed: int, width: int = SIZE, height: int = SIZE) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_16_bit_colour() -> bytes:
    values = np.full((SIZE, SIZE, 3), 0x80FF, dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return (
        signature
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bomb() -> bytes:
    """A valid PNG header of 30,000 x 30,000 px, and hardly any data behind it."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(30, 64, 40), "JPEG", exif=exif, quality=95)


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name to (bytes, fate); a fate is a quarantine reason, or `ok` and the flags."""
    good_jpeg = encode(picture(20), "JPEG", quality=95)
    good_png = encode(picture(21), "PNG")
    see_through = picture(22).convert("RGBA")
    see_through.putpixel((3, 3), (0, 0, 0, 128))
    grey_16 = Image.fromarray((np.arange(SIZE * SIZE, dtype=np.uint16) * 20).reshape(SIZE, SIZE))
    frames = [picture(23), picture(24)]
    damaged = bytearray(encode(picture(25), "PNG"))
    damaged[len(damaged) // 2] ^= 0xFF
    return {
        "text.jpg": (b"this is not a photograph\n", "not_an_image"),
        "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\n", "not_an_image"),
        "truncated.jpg": (good_jpeg[: len(good_jpeg) // 2], "truncated"),
        "headless.jpg": (good_jpeg[:20], "truncated"),
        "truncated.png": (good_png[: len(good_png) // 2], "truncated"),
        "damaged.png": (bytes(damaged), "unreadable"),
        "empty.png": (b"", "empty"),
        "cmyk.jpg": (encode(picture(26).convert("CMYK"), "JPEG"), "ok converted_cmyk"),
        "grey16.png": (encode(grey_16, "PNG"), "ok converted_16_bit converted_grey"),
        "colour16.png": (png_16_bit_colour(), "ok converted_16_bit"),
        "moving.gif": (
            encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            "animated",
        ),
        "moving.webp": (
            encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
            "animated",
        ),
        "moving.png": (
            encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
            "animated",
        ),
        "still.bmp": (encode(picture(27), "BMP"), "unsupported_format"),
        "rotated.jpg": (rotated(), "ok exif_rotated not_square"),
        "bomb.png": (bomb(), "too_many_pixels"),
        "tiny.png": (encode(picture(28, 8, 8), "PNG"), "too_small"),
        "strip.png": (encode(picture(29, 400, 40), "PNG"), "extreme_aspect"),
        "glass.png": (encode(see_through, "PNG"), "transparent"),
        "opaque.png": (encode(picture(31).convert("RGBA"), "PNG"), "ok opaque_alpha_dropped"),
        "palette.png": (encode(picture(32).convert("P"), "PNG"), "ok converted_palette"),
        "photo.png": (encode(picture(33), "JPEG"), "ok wrong_extension"),
        "twin_a.png": (encode(picture(34), "PNG"), "ok"),
        "twin_b.png": (encode(picture(34), "PNG"), "duplicate"),
    }


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def config_for(workspace: Workspace, **settings) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "workspace": {"root": workspace.root},
            "ingest": {"max_failed_fraction": 1.0, "num_workers": 1, "chunk_size": 8} | settings,
        }
    )


def write(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def fates(workspace: Workspace) -> dict[str, str]:
    images = read_table(workspace, IMAGES)
    quarantine = read_table(workspace, QUARANTINE)
    taken = {
        row["path"].split("/")[-1]: " ".join(["ok", *row["flags"]])
        for row in images.iter_rows(named=True)
    }
    refused = {
        row["path"].split("/")[-1]: row["reason"] for row in quarantine.iter_rows(named=True)
    }
    assert not set(taken) & set(refused)
    return taken | refused


def test_every_bad_file_meets_its_fate_and_none_is_lost(workspace):
    files = bad_files()
    for name, (data, _) in files.items():
        write(workspace.raw_ffhq, name, data)
    report = ingest.run(config_for(workspace), workspace, "ffhq_aging")
    assert fates(workspace) == {name: fate for name, (_, fate) in files.items()}
    assert report.counts["inputs"] == len(files)
    assert report.counts["images"] + report.counts["quarantined"] == len(files)
    quarantine = read_table(workspace, QUARANTINE)
    assert quarantine["detail"].str.len_chars().min() > 20
    twin = quarantine.row(by_predicate=pl.col("reason") == "duplicate", named=True)
    assert twin["duplicate_of"] == "data/raw/ffhq_aging/twin_a.png"
    # What was accepted can be read by the stages, at once.
    assert load_faces(workspace, read_table(workspace, IMAGES)["face_path"], 32).shape[1:] == (
        32, 32, 3,
    )  # fmt: skip


def test_sixteen_bits_are_shifted_and_rotation_is_applied(workspace):
    for name in ("grey16.png", "colour16.png", "rotated.jpg"):
        write(workspace.raw_ffhq, name, bad_files()[name][0])
    ingest.run(config_for(workspace), workspace, "ffhq_aging")
    images = read_table(workspace, IMAGES)
    rows = {row["raw_name"]: row for row in images.iter_rows(named=True)}
    turned = rows["rotated.jpg"]
    stored = turned["stored_width_px"], turned["stored_height_px"]
    assert stored == (64, 40)
    assert (turned["width_px"], turned["height_px"]) == (40, 64)
    colour = load_faces(workspace, [rows["colour16.png"]["face_path"]], SIZE)
    assert np.all(colour == 0x80)
    grey = load_faces(workspace, [rows["grey16.png"]["face_path"]], SIZE)[0, :, :, 0].ravel()
    assert np.array_equal(grey, (np.arange(SIZE * SIZE) * 20) >> 8)


def test_a_decoder_that_dies_takes_one_file_with_it(workspace, monkeypatch):
    for seed in range(5):
        write(workspace.raw_ffhq, f"{seed:05}.png", encode(picture(seed), "PNG"))
    # A decoder bug, played by a patched decoder in the decoding process.
    killer = workspace.root / "killer"
    killer.mkdir(parents=True)
    (killer / "sitecustomize.py").write_text(
        "import os\n"
        "import agetf_pipeline.data.probe as probe\n"
        "real = probe.probe_picture\n"
        "import hashlib\n"
        "def dying(data, limits):\n"
        "    if hashlib.sha256(data).hexdigest() == os.environ['KILLED_BY']:\n"
        "        os.kill(os.getpid(), 11)\n"
        "    return real(data, limits)\n"
        "probe.probe_picture = dying\n"
    )
    repository = Path(ingest.__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{killer}{os.pathsep}{repository}")
    from agetf_pipeline.core.hashing import hash_file

    monkeypatch.setenv("KILLED_BY", hash_file(workspace.raw_ffhq / "00002.png"))
    ingest.run(config_for(workspace), workspace, "ffhq_aging")
    assert fates(workspace) == {
        f"{seed:05}.png": "decoder_crash" if seed == 2 else "ok" for seed in range(5)
    }
    assert "signal 11" in read_table(workspace, QUARANTINE)["detail"][0]


def test_links_pipes_and_strange_names(workspace, tmp_path):
    folder = workspace.raw_ffhq
    write(folder, "00000.png", encode(picture(0), "PNG"))
    write(tmp_path / "private", "secret.png", encode(picture(1), "PNG"))
    (folder / "out.png").symlink_to(tmp_path / "private" / "secret.png")
    (folder / "album").symlink_to(tmp_path / "private", target_is_directory=True)
    (folder / "broken.png").symlink_to(folder / "nothing.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    raw = os.fsencode(folder) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(encode(picture(2), "PNG"))
    write(folder, "caf\u00e9.png", encode(picture(3), "PNG"))
    write(folder, "cafe\u0301.png", encode(picture(4), "PNG"))
    write(folder, ".hidden.png", b"")
    report = ingest.run(config_for(workspace), workspace, "ffhq_aging")
    assert fates(workspace) == {
        "00000.png": "ok",
        "out.png": "outside_folder",
        "album": "outside_folder",
        "broken.png": "missing_file",
        "loop": "linked_folder",
        "pipe.png": "not_a_file",
        "caf\\xe9.png": "ok name_not_utf8",
        "caf\u00e9.png": "ok",
        "cafe\u0301.png": "ok",
    }
    assert report.counts["inputs"] == 9
    faces = load_faces(workspace, read_table(workspace, IMAGES)["face_path"], 16)
    assert len(faces) == 4


def test_a_list_that_is_a_link_out_of_its_folder_is_not_read(workspace, tmp_path):
    write(workspace.raw_caf / "one", "a.png", encode(picture(0), "PNG"))
    write(tmp_path / "private", "secret.csv", b"path,subject,age\na.png,eve,30\n")
    (workspace.raw_caf / "one" / "manifest.csv").symlink_to(tmp_path / "private" / "secret.csv")
    with pytest.raises(DataError, match="a link that leads out of it"):
        ingest.run(config_for(workspace), workspace, "caf/one")
    ingest.run(config_for(workspace, caf={"follow_links": True}), workspace, "caf/one")
    assert read_table(workspace, IMAGES)["subject"].to_list() == ["eve"]


def test_names_of_every_kind_and_a_folder_as_deep_as_it_gets(workspace):
    names = ["-rf.png", "a b.png", "line\nbreak.png", "\u202egnp.exe.png", "\U0001f600.png",
             "=cmd().png", "x" * 251 + ".png", "A.png", "a.png", '"quoted",.png', "<b>.png",
             "/".join(["d" * 100] * 20) + "/deep.png"]  # fmt: skip
    for seed, name in enumerate(names):
        path = workspace.raw_caf / "one" / name
        write(path.parent, path.name, encode(picture(seed), "PNG"))
    rows = pl.DataFrame({"path": names, "subject": "@SUM(1)", "age": "30"})
    write(workspace.raw_caf / "one", "manifest.csv", rows.write_csv().encode())
    ingest.run(config_for(workspace), workspace, "caf/one")
    images = read_table(workspace, IMAGES)
    assert images.height == len(names)
    assert all(name.isascii() and name.isprintable() for name in images["raw_name"])
    assert len(load_faces(workspace, images["face_path"], 16)) == len(names)


def test_a_csv_that_a_spreadsheet_spoilt_is_refused_with_its_row(workspace):
    write(workspace.raw_ffhq, "00000.png", encode(picture(0), "PNG"))
    header = (
        "image_number,age_group,age_group_confidence,gender,gender_confidence,head_pitch,"
        "head_roll,head_yaw,left_eye_occluded,right_eye_occluded,glasses\n"
    )
    labels = header + "0,20-29,1,male,1,0,0,0,0,0,None\n1,6-Mar,1,male,1,0,0,0,0,0,None\n"
    write(workspace.raw_ffhq, "ffhq_aging_labels.csv", labels.encode())
    with pytest.raises(DataError, match=r"line 3 .*'6-Mar', a date.*text"):
        ingest.run(config_for(workspace), workspace, "ffhq_aging")


def test_too_many_bad_files_stop_the_stage_but_leave_the_tables(workspace):
    write(workspace.raw_ffhq, "00000.png", encode(picture(0), "PNG"))
    write(workspace.raw_ffhq, "00001.png", b"")
    write(workspace.raw_ffhq, "00002.png", encode(picture(0), "PNG"))
    with pytest.raises(StageError, match=r"at most 20% of the 3 files.*found 1: 1 empty"):
        ingest.run(config_for(workspace, max_failed_fraction=0.2), workspace, "ffhq_aging")
    assert fates(workspace) == {"00000.png": "ok", "00001.png": "empty", "00002.png": "duplicate"}
