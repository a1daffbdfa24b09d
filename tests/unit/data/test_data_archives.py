"""Archives of shards: what is unpacked, and what is refused whole."""

import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from small_disk import NEEDS_MOUNT, small_disk

from agetf_pipeline.cli import main
from agetf_pipeline.config.ingest import ArchiveLimits
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.archives import shard_name_of, unpack

MANIFEST = b"path,subject,age\na.jpg,ann,20\nb/c.jpg,bob,\n"
GOOD = {"manifest.csv": MANIFEST, "a.jpg": b"one", "b/c.jpg": b"two"}


def tar(path: Path, files: Mapping[str, bytes], *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in infos:
            archive.addfile(info)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def packed_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def unpacked(archive: Path, **limits) -> dict[str, bytes]:
    """Unpack beside the archive; return what is there then."""
    folder = archive.parent / "caf" / "shard"
    unpack(archive, folder, ArchiveLimits(**limits), archive.parent / "locks")
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(archive: Path, **limits) -> str:
    """The refusal; nothing may be left of the archive anywhere."""
    with pytest.raises(DataError) as caught:
        unpacked(archive, **limits)
    assert list((archive.parent / "caf").iterdir()) == []
    beside = {path.name for path in archive.parent.iterdir()}
    assert beside == {archive.name, "caf", "locks"}
    return str(caught.value)


def zst(path: Path, files: Mapping[str, bytes]) -> Path:
    plain = tar(path.with_suffix(""), files)
    with pa.CompressedOutputStream(path, "zstd") as stream:
        stream.write(plain.read_bytes())
    plain.unlink()
    return path


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tgz", "s.tar.zst", "s.zip"])
@pytest.mark.parametrize("top", ["", "some folder/"])
def test_every_kind_is_unpacked_and_a_single_top_folder_stripped(tmp_path, name, top):
    pack = packed_zip if name.endswith("zip") else zst if name.endswith("zst") else tar
    archive = pack(tmp_path / name, {top + member: data for member, data in GOOD.items()})
    assert unpacked(archive) == GOOD


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar here")
@pytest.mark.parametrize("packed", [".", "./"])
def test_a_folder_packed_from_within_by_tar(tmp_path, packed):
    for name, data in GOOD.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    archive = tmp_path / "s.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path / "in", packed], check=True)
    with tarfile.open(archive) as entries:
        assert "." in entries.getnames()
    shutil.rmtree(tmp_path / "in")
    assert unpacked(archive) == GOOD


def test_the_packed_folder_itself_is_no_member_and_a_file_of_that_name_is_refused(tmp_path):
    within = {f"./{name}": data for name, data in GOOD.items()}
    folders = [special(name, tarfile.DIRTYPE) for name in ("./", ".", "./././", "./b/")]
    assert unpacked(tar(tmp_path / "s.tar", within, *folders)) == GOOD
    shutil.rmtree(tmp_path / "caf")
    assert "an empty name" in refused(tar(tmp_path / "s.tar", GOOD | {"./.": b"evil"}))
    assert "an empty name" in refused(tar(tmp_path / "s.tar", GOOD, special("//", tarfile.DIRTYPE)))


def test_zstd_in_frames_behind_frames_to_be_skipped(tmp_path):
    """As pzstd writes it: before each frame of data one that says how long that is."""
    plain = tar(tmp_path / "s.tar", GOOD).read_bytes()
    frames = [pa.compress(part, "zstd", asbytes=True) for part in (plain[:700], plain[700:])]
    framed = b"".join(struct.pack("<3I", 0x184D2A50, 4, len(frame)) + frame for frame in frames)
    (tmp_path / "s.tar").unlink()
    (tmp_path / "s.tar.zst").write_bytes(framed)
    assert unpacked(tmp_path / "s.tar.zst") == GOOD
    shutil.rmtree(tmp_path / "caf")
    (tmp_path / "s.tar.zst").write_bytes(framed[:-1])
    assert "Expected an archive" in refused(tmp_path / "s.tar.zst")
    (tmp_path / "s.tar.zst").write_bytes(struct.pack("<2I", 0x184D2A5F, 1 << 31))
    assert "Expected an archive" in refused(tmp_path / "s.tar.zst")


def test_what_no_stage_reads_is_left_out_and_named(tmp_path):
    noise = {"__MACOSX/._a.jpg": b"x", ".DS_Store": b"x", "b/.hidden": b"x", "Thumbs.db": b"x"}
    archive = packed_zip(tmp_path / "s.zip", GOOD | noise)
    report = unpack(archive, tmp_path / "caf" / "s", ArchiveLimits(), tmp_path / "locks")
    assert set(report.left_out) == set(noise)
    assert content(tmp_path / "caf" / "s") == GOOD
    assert "Left out, no stage reads them: 4" in report.lines()[1]


HOSTILE = {
    "/etc/cron.d/x": "an absolute path",
    "../up.jpg": "leads upwards",
    "a/../../up.jpg": "leads upwards",
    "../.ssh/authorized_keys": "leads upwards",
    "C:/x.jpg": "a drive letter",
    "..\\up.jpg": "a backslash",
    "line\nbreak.jpg": "a control character",
    "x" * 256 + ".jpg": "over 255 bytes",
    "/".join(["d" * 100] * 12) + "/x.jpg": "a path over 1024 bytes",
    "/".join("abcdefghijklmnopqr") + "/x.jpg": "more than 16 folders deep",
    "A.JPG": "a second member",
    "a.jpg/x.jpg": "a second member",
    "B": "a second member",
}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_that_must_not_be_refuses_the_whole_archive(tmp_path, kind, name):
    pack = tar if kind == "tar" else packed_zip
    message = refused(pack(tmp_path / f"s.{kind}", GOOD | {name: b"evil"}))
    assert HOSTILE[name] in message
    assert "Nothing was unpacked" in message


def test_accents_written_apart_are_the_same_name(tmp_path):
    twice = {"caf\u00e9.jpg": b"1", "cafe\u0301.jpg": b"2"}
    assert "a second member" in refused(tar(tmp_path / "s.tar", GOOD | twice))


def test_the_same_name_twice(tmp_path):
    again = tarfile.TarInfo("a.jpg")
    assert "a second member" in refused(tar(tmp_path / "s.tar", GOOD, again))


@pytest.mark.parametrize(
    "info",
    [
        special("out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("in.jpg", tarfile.SYMTYPE, "a.jpg"),
        special("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
        special("null", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_links_and_devices_are_refused(tmp_path, info):
    assert f"{info.name}: a " in refused(tar(tmp_path / "s.tar", GOOD, info))


def test_a_link_in_a_zip_and_an_encrypted_member_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    archive = packed_zip(tmp_path / "s.zip", GOOD)
    with zipfile.ZipFile(archive, "a") as stream:
        stream.writestr(link, "/etc/passwd")
    assert "link.jpg: a link" in refused(archive)
    data = bytearray(packed_zip(archive, {"manifest.csv": MANIFEST}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refused(archive)


def test_names_that_are_not_utf8_are_refused_and_named(tmp_path):
    archive = tmp_path / "s.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as stream:
        stream.addfile(tarfile.TarInfo("caf\u00e9.jpg"))
    assert r"caf\xe9.jpg: the name is not UTF-8" in refused(archive)
    data = packed_zip(tmp_path / "s.zip", GOOD | {"cafZ.jpg": b"x"}).read_bytes()
    archive.unlink()
    (tmp_path / "s.zip").write_bytes(data.replace(b"cafZ.jpg", b"caf\xe9.jpg"))
    assert r"caf\xe9.jpg: the name is not UTF-8" in refused(tmp_path / "s.zip")


def test_a_name_cut_at_nul_is_not_taken_for_another(tmp_path):
    data = packed_zip(tmp_path / "s.zip", GOOD | {"x.jpgZZZ": b"x"}).read_bytes()
    (tmp_path / "s.zip").write_bytes(data.replace(b"x.jpgZZZ", b"x.jpg\0ZZ"))
    assert "a control character" in refused(tmp_path / "s.zip")


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tar.zst", "s.zip"])
def test_bombs_are_stopped_by_what_they_unpack_to(tmp_path, name):
    pack = packed_zip if name.endswith("zip") else zst if name.endswith("zst") else tar
    archive = pack(tmp_path / name, {".hidden": bytes(30_000_000)} | GOOD)
    assert "unpacks to over 50 times the archive" in refused(archive)


def test_each_limit_holds(tmp_path):
    archive = tar(tmp_path / "s.tar", GOOD)
    assert "more than 2 members" in refused(archive, max_members=2)
    assert "a.jpg: over 2 bytes" in refused(
        tar(archive, {"a.jpg": b"one"} | GOOD), max_member_bytes=2
    )
    assert "bytes in all" in refused(archive, max_bytes=len(MANIFEST))
    assert "a directory of" in refused(
        packed_zip(archive, {str(n): b"" for n in range(99)}), max_members=1
    )


def test_headers_without_end_do_not_fill_the_memory(tmp_path):
    # A PAX header that says it has 8 GB, and a gzip stream that would give them.
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(40_000_000)
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(raw, 1))
    assert "a header of more than" in refused(tmp_path / "s.tar.gz")


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tar.zst", "s.zip"])
def test_a_cut_archive_is_refused_wherever_it_is_cut(tmp_path, name):
    pack = packed_zip if name.endswith("zip") else zst if name.endswith("zst") else tar
    whole = pack(tmp_path / name, GOOD).read_bytes()
    # A tar ends with two blocks of zeros and padding; without the last of them it is whole.
    end = 3 * 1024 + 1 if name == "s.tar" else len(whole)
    for length in [*range(0, end - 1, max(1, end // 40)), end - 2]:
        (tmp_path / name).write_bytes(whole[:length])
        assert "Expected an archive" in refused(tmp_path / name)


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar(tmp_path / "s.tar", GOOD).read_bytes())
    data[2 * 512 + 3] ^= 0xFF
    (tmp_path / "s.tar").write_bytes(data)
    assert "header" in refused(tmp_path / "s.tar")


def test_an_archive_without_a_manifest_is_refused(tmp_path):
    message = refused(tar(tmp_path / "s.tar", {"a.jpg": b"one"}))
    assert "manifest.csv, a CSV of path,subject,age" in message
    assert ".tmp-" not in message


def test_nothing_is_overwritten_and_the_same_again_is_no_error(tmp_path):
    archive = tar(tmp_path / "s.tar", GOOD)
    assert unpacked(archive) == GOOD
    folder, limits = tmp_path / "caf" / "shard", ArchiveLimits()
    inode = folder.stat().st_ino
    assert unpack(archive, folder, limits, tmp_path / "locks").was_there
    assert folder.stat().st_ino == inode
    tar(archive, GOOD | {"a.jpg": b"other"})
    with pytest.raises(DataError, match="found other content"):
        unpack(archive, folder, limits, tmp_path / "locks")
    assert content(folder) == GOOD
    assert [path.name for path in folder.parent.iterdir()] == ["shard"]


def test_what_is_no_archive_is_said_to_be_none(tmp_path):
    (tmp_path / "s.tar").write_bytes(struct.pack(">4I", 1, 2, 3, 4) * 100)
    assert "no tar, tar.gz, tar.zst or zip" in refused(tmp_path / "s.tar")


def test_the_shard_is_named_by_the_archive():
    assert shard_name_of(Path("x/caf-2019_b.tar.zst")) == "caf-2019_b"
    with pytest.raises(DataError, match="--shard NAME"):
        shard_name_of(Path("my photos.zip"))


def test_the_command_unpacks_what_it_can_and_ends_with_what_it_could_not(tmp_path, capsys):
    good, bad = tar(tmp_path / "one.tar", GOOD), tar(tmp_path / "two.tar", {"../x": b""})
    root = f"workspace.root={tmp_path / 'w'}"
    assert main(["unpack", str(bad), str(good), root]) == 1
    said = capsys.readouterr()
    assert "one: unpacked; 3 files" in said.out
    assert "leads upwards" in said.err
    assert [path.name for path in (tmp_path / "w" / "data" / "raw" / "caf").iterdir()] == ["one"]
    assert main(["unpack", "--shard", "new", str(good), root]) == 0


def test_overrides_may_stand_behind_the_options(tmp_path, capsys):
    archive, config = tar(tmp_path / "one.tar", GOOD), tmp_path / "c.yaml"
    config.write_text("{}")
    words = ["unpack", str(archive), "--config", str(config), f"workspace.root={tmp_path / 'w'}"]
    assert main(words) == 0
    assert content(tmp_path / "w" / "data" / "raw" / "caf" / "one") == GOOD
    assert main([*words, "ingest.archives.max_members=1"]) == 1
    assert "more than 1 members" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["../x", "..", "", "/x", "a/b", ".x"])
def test_a_shard_that_leads_elsewhere_is_refused(tmp_path, shard, capsys):
    archive = tar(tmp_path / "one.tar", GOOD)
    (tmp_path / "w").mkdir()
    root = f"workspace.root={tmp_path / 'w'}"
    assert main(["unpack", f"--shard={shard}", str(archive), root]) == 1
    assert "Expected" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"one.tar", "w"}
    assert [path for path in (tmp_path / "w").rglob("*") if path.is_file()] == []


@NEEDS_MOUNT
def test_a_disk_that_fills_up_half_way_keeps_nothing_and_says_so(tmp_path, capsys):
    blocks = [random.Random(n).randbytes(1000) * 40 for n in range(50)]
    files = {f"{n}.jpg": blocks[n % 50] * 20 for n in range(120)}  # 96 MB, of which gzip makes 2
    archive = tar(tmp_path / "one.tar.gz", files | GOOD)
    with small_disk(tmp_path / "w", 70 << 20) as disk:
        limits = "ingest.archives.max_ratio=1000"
        assert main(["unpack", str(archive), f"workspace.root={disk}", limits]) == 1
        said = capsys.readouterr().err
        assert "disk" in said
        assert str(disk) in said
        assert "Traceback" not in said
        assert list((disk / "data" / "raw" / "caf").iterdir()) == []
        assert shutil.disk_usage(disk).free > 69 << 20


def test_killed_half_way_it_leaves_no_shard_and_what_it_left_is_found(tmp_path, capsys):
    archive = tar(tmp_path / "one.tar", GOOD | {f"{n}.jpg": bytes(999) for n in range(1500)})
    caf, root = tmp_path / "w" / "data" / "raw" / "caf", f"workspace.root={tmp_path / 'w'}"
    command = [sys.executable, "-m", "agetf_pipeline.cli", "unpack", str(archive), root]
    with subprocess.Popen(command, start_new_session=True) as process:
        while process.poll() is None and not list(caf.glob(".tmp-*/1*.jpg")):
            time.sleep(0.001)
        os.kill(process.pid, 9)
    assert process.returncode == -9
    (left,) = caf.iterdir()
    assert left.name.startswith(".tmp-")
    assert len(list(left.iterdir())) < 1503
    assert main(["verify", "--quiet", "--only", "files", root]) == 0
    assert f"files/temporary: data/raw/caf/{left.name}" in capsys.readouterr().out
    assert main(["unpack", str(archive), root]) == 0
    assert [path.name for path in caf.iterdir()] == ["one"]
    assert len(content(caf / "one")) == 1503


def test_killed_while_unpacking_it_leaves_no_shard(tmp_path):
    archive = tar(tmp_path / "s.tar", GOOD)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from agetf_pipeline.data import archives\n"
        "from agetf_pipeline.config.ingest import ArchiveLimits\n"
        "archives._strip_top = lambda folder: os.kill(os.getpid(), 9)\n"
        "root = Path(sys.argv[1])\n"
        "archives.unpack(root / 's.tar', root / 'caf' / 'shard', ArchiveLimits(), root / 'locks')\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -9
    left = [path.name for path in (tmp_path / "caf").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".tmp-")
    assert unpacked(archive) == GOOD
