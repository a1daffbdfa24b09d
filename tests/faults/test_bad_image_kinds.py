"""Every kind of strange picture through a decoding process: its fate, and the limits that hold."""

import io
import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz_seeds import HEIGHT, SIGNATURE, WIDTH, encode, exif, photo, png, png_chunk
from PIL import Image
from pydantic import ValidationError

from agetf_pipeline.config.ingest import ImageLimits, IngestConfig, SourceConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.containers import count_scans
from agetf_pipeline.data.corpus_store import open_store
from agetf_pipeline.data.examinations import Examiner
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.inputs import read_face
from agetf_pipeline.data.photos import read_photo

ZEROS = 300_000_000


def zeros(num_bytes: int = ZEROS) -> bytes:
    """A zlib stream of a few hundred kilobytes that unpacks to so many."""
    packer = zlib.compressobj(9)
    block = bytes(10_000_000)
    packed = b"".join(packer.compress(block) for _ in range(num_bytes // len(block)))
    return packed + packer.flush()


def with_chunk(chunk: bytes) -> bytes:
    return png(8, 2, before=chunk)


def headed_png(width: int, height: int, packed: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        SIGNATURE
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", packed)
        + png_chunk(b"IEND", b"")
    )


def scan_bomb(num_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * num_scans + data[-2:]


def altered_jpeg(marker: int, offset: int, value: bytes, **options) -> bytes:
    """A JPEG with bytes of its first such segment changed; the offset counts from the marker."""
    data = bytearray(encode(options.pop("image", photo()), "JPEG", **options))
    start = data.index(bytes((0xFF, marker))) + offset
    data[start : start + len(value)] = value
    return bytes(data)


def webp(canvas: tuple[int, int]) -> bytes:
    """An extended WebP that says another canvas than its picture has."""
    data = bytearray(encode(photo(), "WEBP", exif=exif(1)))
    assert data[12:16] == b"VP8X"
    for place, side in zip((24, 27), canvas, strict=True):
        data[place : place + 3] = (side - 1).to_bytes(3, "little")
    return bytes(data)


def zip_of_a_script() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("run.py", "import os")
    return stream.getvalue()


def kinds() -> dict[str, tuple[bytes, str]]:
    """Name to (bytes, fate): a reason of quarantine, or `ok` and the flags, sorted."""
    rgb = photo()
    bomb = zeros()
    jpeg = encode(rgb, "JPEG")
    alpha = Image.merge("RGBA", (*rgb.split(), Image.new("L", rgb.size, 128)))
    opaque = rgb.convert("RGBA")
    return {
        # Compressed text and profiles that unpack to hundreds of megabytes.
        "long text": (with_chunk(png_chunk(b"tEXt", b"a\0" + b"x" * 2_000_000)), "ok not_square"),
        "ztxt bomb": (with_chunk(png_chunk(b"zTXt", b"a\0\0" + bomb)), "decompression_bomb"),
        "itxt bomb": (
            with_chunk(png_chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)), "decompression_bomb",
        ),
        "iccp bomb": (with_chunk(png_chunk(b"iCCP", b"a\0\0" + bomb)), "decompression_bomb"),
        "many texts": (
            with_chunk(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 70),
            "decompression_bomb",
        ),
        "huge exif": (with_chunk(png_chunk(b"eXIf", bytes(20_000_000))), "ok not_square"),
        "idat bomb": (headed_png(WIDTH, HEIGHT, bomb), "ok not_square"),
        # Headers that lie, or that no picture has.
        "no width": (headed_png(0, 40), "unreadable"),
        "negative": (headed_png(0x80000001, 40), "too_many_pixels"),
        "billions": (headed_png(0x7FFFFFFF, 0x7FFFFFFF), "too_many_pixels"),
        "jpeg of no height": (altered_jpeg(0xC0, 5, b"\0\0"), "unreadable"),
        "jpeg of 65535": (altered_jpeg(0xC0, 5, b"\xff\xff\xff\xff"), "too_many_pixels"),
        "line": (headed_png(10_000, 1), "too_small"),
        "strip": (headed_png(10_000, 40), "extreme_aspect"),
        "webp canvas too large": (webp((16_384, 16_384)), "too_many_pixels"),
        "webp canvas other": (webp((WIDTH, HEIGHT + 3)), "unreadable"),
        # Kinds of JPEG.
        "progressive": (encode(rgb, "JPEG", progressive=True), "ok not_square"),
        "scan bomb": (scan_bomb(20_000), "decompression_bomb"),
        "thumbnail": (
            encode(rgb, "JPEG", exif=b"Exif\0\0MM\0*" + bytes(60_000)), "ok not_square",
        ),
        "mpo": (
            encode(rgb, "MPO", save_all=True, append_images=[photo(1)]),
            "ok first_of_several_pictures not_square",
        ),
        "grey jpeg": (encode(rgb.convert("L"), "JPEG"), "ok converted_grey not_square"),
        "cmyk": (encode(rgb.convert("CMYK"), "JPEG"), "ok converted_cmyk not_square"),
        "ycck": (
            altered_jpeg(0xEE, 15, b"\x02", image=rgb.convert("CMYK")),
            "ok converted_cmyk not_square",
        ),
        "12 bits": (altered_jpeg(0xC0, 4, b"\x0c"), "unreadable"),
        "lossless jpeg": (altered_jpeg(0xC0, 1, b"\xc3"), "unreadable"),
        # Kinds of PNG.
        "interlaced": (png(8, 2, interlaced=True), "ok not_square"),
        "interlaced 16 bits": (png(16, 2, interlaced=True), "ok converted_16_bit not_square"),
        "1 bit": (png(1, 0), "ok converted_grey not_square"),
        "palette": (png(4, 3), "ok converted_palette not_square"),
        "palette, opaque": (
            png(4, 3, before=png_chunk(b"tRNS", bytes([255] * 16))),
            "ok converted_palette not_square opaque_alpha_dropped",
        ),
        "palette, see-through": (
            png(4, 3, before=png_chunk(b"tRNS", bytes([255, 7] * 8))), "transparent",
        ),
        "apng": (encode(rgb, "PNG", save_all=True, append_images=[photo(1)]), "animated"),
        # Kinds of WebP.
        "webp lossless": (encode(rgb, "WEBP", lossless=True), "ok not_square"),
        "webp lossless alpha": (encode(alpha, "WEBP", lossless=True), "transparent"),
        "webp opaque alpha": (encode(opaque, "WEBP", lossless=True), "ok not_square"),
        "webp grey": (encode(rgb.convert("L"), "WEBP"), "ok not_square"),
        "webp animated": (
            encode(rgb, "WEBP", save_all=True, append_images=[photo(1)]), "animated",
        ),
        # Files that are two things at once: the picture is read, the other part is nobody's.
        "jpeg and zip": (jpeg + zip_of_a_script(), "ok not_square"),
        "zip and jpeg": (zip_of_a_script() + jpeg, "not_an_image"),
        "script in a comment": (
            jpeg[:2] + b"\xff\xfe\x00\x1b<script>alert(1)</script>" + jpeg[2:], "ok not_square",
        ),
        "gif and script": (b"GIF89a/*" + b"*/=1;alert(1)//", "unsupported_format"),
    }  # fmt: skip


def test_every_kind_meets_its_fate_within_the_memory_of_its_process(tmp_path):
    files = kinds()
    for number, (data, _) in enumerate(files.values()):
        (tmp_path / str(number)).write_bytes(data)
    requests = [Request(tmp_path / str(number)) for number in range(len(files))]
    with ExaminePool(ImageLimits(), 64, 1, 30.0) as pool:
        answers = pool.examine(requests)
        process = pool._idle[0]._process.pid
        status = Path(f"/proc/{process}/status").read_text()
    fates = {
        name: answer["reason"] or " ".join(["ok", *sorted(answer["flags"])])
        for name, answer in zip(files, answers, strict=True)
    }
    assert fates == {name: fate for name, (_, fate) in files.items()}
    # None of the bombs was unpacked: 300 MB would stand out.
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 250 << 10
    for request, answer in zip(requests, answers, strict=True):
        if answer["reason"] is None:
            rgb = read_rgb(request.path, answer["sha256"])
            assert rgb.shape == (answer["height_px"], answer["width_px"], 3)


def test_an_arithmetically_coded_jpeg_is_decoded_or_refused(tmp_path):
    """Which of the two is the decoder's build; Huffman data read so is noise, not a crash."""
    (tmp_path / "a.jpg").write_bytes(altered_jpeg(0xC0, 1, b"\xc9"))
    with ExaminePool(ImageLimits(), 64, 1, 30.0) as pool:
        (answer,) = pool.examine([Request(tmp_path / "a.jpg")])
    assert answer["reason"] in (None, "unreadable", "truncated")


def test_scans_are_counted_where_they_are_and_nowhere_else():
    rgb = photo()
    assert count_scans(encode(rgb, "JPEG"), 64) == 1
    assert 6 <= count_scans(encode(rgb, "JPEG", progressive=True), 64) <= 12
    # Bytes of a thumbnail, a profile, or whatever lies behind the picture are no scans of it.
    marks = b"Exif\0\0" + b"\xff\xda\x00\x02" * 200
    assert count_scans(encode(rgb, "JPEG", exif=marks), 64) == 1
    assert count_scans(encode(rgb, "JPEG") + b"\xff\xda\x00\x02" * 200, 64) == 1
    assert count_scans(encode(rgb, "JPEG", restart_marker_blocks=1), 64) == 1
    assert count_scans(scan_bomb(500), 64) == 65
    assert count_scans(b"\xff\xd8\xff", 64) == count_scans(b"", 64) == 0


def test_the_memory_of_a_process_follows_from_the_limits():
    with ExaminePool(ImageLimits(), 64, 1, 30.0) as pool:
        pool.examine([Request(Path("/nowhere"))])
        limits = Path(f"/proc/{pool._idle[0]._process.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) == ImageLimits().memory_mib() << 20 == 1983 << 20
    with pytest.raises(ValidationError, match="max_memory_mib of 1297 at least"):
        ImageLimits(max_memory_mib=1000)
    assert ImageLimits(max_memory_mib=1000, max_pixels=20_000_000).memory_mib() == 1000


def test_a_picture_that_needs_more_memory_than_there_is_says_so(tmp_path):
    Image.new("RGB", (6000, 6000), "grey").save(tmp_path / "large.png")
    # What the configuration refuses: less memory than pictures within the limits need.
    tight = ImageLimits().model_copy(update={"max_memory_mib": 200})
    with ExaminePool(tight, 64, 1, 30.0) as pool:
        (answer,) = pool.examine([Request(tmp_path / "large.png")])
    assert answer["reason"] == "decoder_crash"
    assert "max_memory_mib" in answer["detail"]


def test_no_more_bytes_are_read_than_allowed(tmp_path):
    # A file whose size says 0 until it is read, as one that grows meanwhile.
    with pytest.raises(TooManyBytesError):
        read_at_most(Path("/proc/self/maps"), 50)
    with (tmp_path / "sparse.png").open("wb") as stream:
        stream.truncate(10**13)
    with ExaminePool(ImageLimits(), 64, 1, 30.0) as pool:
        (answer,) = pool.examine([Request(tmp_path / "sparse.png")])
    assert answer["reason"] == "too_many_bytes"
    with pytest.raises(DataError, match="over the limit"):
        read_photo(tmp_path / "sparse.png")
    assert "over the limit" in (read_face(tmp_path / "sparse.png", True).reason or "")
    with pytest.raises(DataError, match="10000000000000 bytes"):
        read_rgb(tmp_path / "sparse.png")


def test_a_file_that_grows_while_it_is_read_stays_bounded(tmp_path):
    path, done = tmp_path / "growing", threading.Event()
    path.write_bytes(bytes(1000))

    def grow() -> None:
        with path.open("ab") as stream:
            while not done.is_set():
                stream.write(bytes(100_000))
                stream.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(TooManyBytesError):
            _read_until_refused(path, 2_000_000)
    finally:
        done.set()
        writer.join()


def _read_until_refused(path: Path, max_bytes: int) -> None:
    while True:
        assert len(read_at_most(path, max_bytes)) <= max_bytes


def test_a_replaced_picture_is_noticed_and_a_bomb_in_its_place_not_decoded(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo(), "PNG"))
    image_id = hash_file(path)
    assert read_rgb(path, image_id).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(encode(photo(1), "PNG"))
    with pytest.raises(DataError, match="The file changed since ingest"):
        read_rgb(path, image_id)
    for data in (headed_png(30_000, 30_000), headed_png(15_000, 15_000), encode(photo(), "TIFF")):
        path.write_bytes(data)
        with pytest.raises(DataError, match="Expected a readable image at"):
            read_rgb(path)


def examine(tmp_path: Path, files: dict[str, Path], **settings) -> dict[str, dict]:
    config = IngestConfig.model_validate({"num_workers": 1, "chunk_size": 4} | settings)
    examiner = Examiner(Workspace(tmp_path), config, SourceConfig(), "caf/one")
    with open_store(tmp_path / "store", tmp_path) as store:
        store.run_many(
            "INSERT INTO wanted (image_id, name) VALUES (?, ?)",
            ((bytes.fromhex(image_id), os.fsencode(path.name)) for image_id, path in files.items()),
        )
        examiner.examine_all(store)
        return {i: row for found in examiner.findings(store) for i, row in found.items()}


def test_a_file_that_changes_between_hash_and_decoding_is_tried_again_next_time(tmp_path):
    good, other = encode(photo(), "PNG"), encode(photo(1), "PNG")
    files = {hash_bytes(good): tmp_path / "a.png", hash_bytes(other): tmp_path / "b.png"}
    (tmp_path / "a.png").write_bytes(other)
    found = examine(tmp_path, files)  # and b.png went away
    assert {row["reason"] for row in found.values()} == {"changed_while_read"}
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(other)
    found = examine(tmp_path, files)
    assert {row["reason"] for row in found.values()} == {None}


def test_what_took_too_long_once_is_tried_again_next_time(tmp_path):
    Image.fromarray(np.zeros((6000, 6000), np.uint8)).save(tmp_path / "slow.png")
    files = {hash_file(tmp_path / "slow.png"): tmp_path / "slow.png"}
    (row,) = examine(tmp_path, files, max_decode_s=0.05).values()
    assert row["reason"] == "decoder_crash"
    (row,) = examine(tmp_path, files).values()
    assert row["reason"] is None
