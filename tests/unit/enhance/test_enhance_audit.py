"""The audit of an enhanced shard: each kind of damage is found, and what can be is repaired."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from enhanced_shard import PARTITION, add_images, make_config, make_workspace, pictures_of
from PIL import Image

from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED, IMAGES
from agetf_pipeline.data.tables import read_table, table_path, write_table
from agetf_pipeline.enhance.audit import audit_partition
from agetf_pipeline.enhance.findings import ERRORS, NOTES, Finding
from agetf_pipeline.enhance.outputs import CONTACT_SHEET, enhanced_folder
from agetf_pipeline.enhance.sidecar import write_sidecar
from agetf_pipeline.stages import enhance

NUM_IMAGES = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("finished"), NUM_IMAGES)
    enhance.run(make_config(), workspace, PARTITION)
    return workspace.root


@pytest.fixture
def workspace(tmp_path, finished) -> Workspace:
    root = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(finished), str(root)], check=True)
    return Workspace(root)


def kinds(workspace: Workspace) -> list[str]:
    return [finding.kind for finding in audit_partition(workspace, PARTITION)]


def audited(workspace: Workspace) -> Finding:
    (finding,) = audit_partition(workspace, PARTITION)
    return finding


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def rerun(workspace: Workspace) -> None:
    enhance.run(make_config(), workspace, PARTITION)


def state_of(workspace: Workspace) -> dict[str, tuple[str, int]]:
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    return {str(path): (hash_file(path), path.stat().st_mtime_ns) for path in files}


def test_a_finished_shard_is_clean_and_the_audit_changes_nothing(workspace):
    before = state_of(workspace)
    assert audit_partition(workspace, PARTITION) == []
    assert state_of(workspace) == before


def _edit_sidecar(path: Path) -> None:
    content = json.loads(path.read_text())
    content["measures"]["blockiness_after"] += 1
    path.write_text(json.dumps(content))


def _rewrite_sidecar(path: Path) -> None:
    content = json.loads(path.read_text())
    for name in ("schema", "checksum"):
        del content[name]
    content["decision"]["reason"] = "somebody's own reason"
    write_sidecar(path, content)


def _shrink(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((8, 8)).save(path)


@pytest.mark.parametrize(
    ("suffix", "damage", "kind"),
    [
        (".png", lambda path: flip(path, -20), "picture_altered"),
        (".png", Path.unlink, "picture_missing"),
        (".png", _shrink, "picture_altered"),
        (".json", Path.unlink, "sidecar_missing"),
        (".json", lambda path: path.write_text("{"), "sidecar_invalid"),
        (".json", _edit_sidecar, "sidecar_invalid"),
        (".json", _rewrite_sidecar, "sidecar_mismatch"),
        (".jpg", Path.unlink, "sheet_missing"),
    ],
)
def test_damage_is_found_and_the_stage_repairs_it(workspace, suffix, damage, kind):
    pictures = pictures_of(workspace)
    path = next(iter(sorted(enhanced_folder(workspace, PARTITION).glob(f"*{suffix}"))))
    damage(path)
    finding = audited(workspace)
    assert (finding.kind, finding.path) == (kind, workspace.relative(path))
    assert finding.is_error
    assert finding.image_id == (None if suffix == ".jpg" else path.stem)
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []
    assert pictures_of(workspace) == pictures


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{'c' * 64}.png", "orphan"),
        (f"{'c' * 64}.json", "orphan"),
        (".tmp-abc.png", "temporary"),
    ],
)
def test_files_that_no_row_knows_are_found_and_removed(workspace, name, kind):
    path = enhanced_folder(workspace, PARTITION) / name
    path.write_bytes(b"x")
    assert (audited(workspace).kind, audited(workspace).path) == (kind, workspace.relative(path))
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []
    assert not path.exists()


def test_a_file_of_somebody_else_is_a_note(workspace):
    path = enhanced_folder(workspace, PARTITION) / "notes.txt"
    path.write_text("mine")
    assert audited(workspace).kind == "foreign_file"
    assert not audited(workspace).is_error
    rerun(workspace)
    assert path.exists()


def test_originals_that_are_gone_or_altered_are_found(workspace):
    first, second = sorted(workspace.raw_caf.rglob("*.png"))[:2]
    digest = hash_file(first)
    first.unlink()
    flip(second, -20)
    found = {finding.kind: finding for finding in audit_partition(workspace, PARTITION)}
    assert set(found) == {"original_missing", "original_altered"}
    assert found["original_missing"].image_id == digest
    assert found["original_missing"].path == workspace.relative(first)
    assert found["original_altered"].found == hash_file(second)
    # The stage leaves the copies alone, and the sheet an empty cell.
    pictures = pictures_of(workspace)
    (enhanced_folder(workspace, PARTITION) / CONTACT_SHEET).unlink()
    rerun(workspace)
    assert pictures_of(workspace) == pictures
    assert sorted(kinds(workspace)) == sorted(found)


def test_a_face_image_is_checked_where_it_is_another_file(workspace):
    images = read_table(workspace, IMAGES, [PARTITION])
    face = workspace.processed / "faces" / "crop.png"
    face.parent.mkdir(parents=True)
    original = workspace.resolve(images["path"][0])
    face.write_bytes(original.read_bytes())
    first = pl.col("image_id") == images["image_id"][0]
    cropped = pl.when(first).then(pl.lit(workspace.relative(face))).otherwise("face_path")
    write_table(workspace, IMAGES, PARTITION, images.with_columns(face_path=cropped))
    # The sidecar names the former face image: made again.
    assert audited(workspace).kind == "sidecar_mismatch"
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []
    _shrink(face)
    assert audited(workspace).kind == "face_size"
    face.unlink()
    assert audited(workspace).kind == "face_missing"


def test_an_original_whose_name_is_no_utf8_is_found_under_it(workspace):
    images = read_table(workspace, IMAGES, [PARTITION])
    path = workspace.resolve(images["path"][0])
    raw = os.fsencode(path.parent) + b"/m\xfcller.png"
    Path(os.fsdecode(raw)).write_bytes(path.read_bytes())
    escaped = f"{Path(images['path'][0]).parent.as_posix()}/m\\xfcller.png"
    first = pl.col("image_id") == images["image_id"][0]
    renamed = pl.when(first).then(pl.lit(escaped)).otherwise("path")
    write_table(workspace, IMAGES, PARTITION, images.with_columns(path=renamed))
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []


def test_rows_that_say_something_else_are_found(workspace):
    rows = read_table(workspace, ENHANCED, [PARTITION])
    first = pl.col("image_id") == rows["image_id"][0]

    def write(**columns: object) -> None:
        changed = {
            name: pl.when(first).then(pl.lit(value)).otherwise(name)
            for name, value in columns.items()
        }
        write_table(workspace, ENHANCED, PARTITION, rows.with_columns(**changed))

    write(settings_version="older")
    assert audited(workspace).expected == "settings_version older"
    write(enhanced_sha256="d" * 64)
    assert kinds(workspace) == ["superseded"]
    write(sharpness_after=9.0)
    assert kinds(workspace) == ["sidecar_mismatch"]
    write(enhanced_path=rows["enhanced_path"][1])
    assert kinds(workspace) == ["misnamed"]
    write(status="failed", enhanced_path=None, reason="it could not be read")
    assert sorted(kinds(workspace)) == ["failed", "orphan", "orphan"]
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []


def test_gaps_and_stale_rows_follow_the_shard(workspace):
    add_images(workspace, NUM_IMAGES + 1)
    assert kinds(workspace) == ["gap"]
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []
    add_images(workspace, NUM_IMAGES)
    assert kinds(workspace) == ["stale_row"]
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []


def test_unfinished_work_counts_and_is_a_note(workspace):
    table = table_path(workspace, ENHANCED, PARTITION)
    part = workspace.state / "parts" / "enhanced" / PARTITION / "abc.parquet"
    part.parent.mkdir(parents=True, exist_ok=True)
    rows = read_table(workspace, ENHANCED, [PARTITION])
    part.write_bytes(table.read_bytes())
    # A row of a part goes before the table's, as it does for the stage.
    stale = rows.with_columns(settings_version=pl.lit("older"))
    write_table(workspace, ENHANCED, PARTITION, stale)
    assert kinds(workspace) == ["unfinished"]
    table.unlink()
    assert kinds(workspace) == ["unfinished"]
    part.unlink()
    assert kinds(workspace) == ["no_table", *["orphan"] * 2 * NUM_IMAGES]
    rerun(workspace)
    assert audit_partition(workspace, PARTITION) == []


def test_damaged_tables_are_found_and_a_shard_without_anything_is_a_note(workspace):
    path = table_path(workspace, ENHANCED, PARTITION)
    path.write_bytes(path.read_bytes()[:-10])
    assert kinds(workspace) == ["table_damaged"]
    (finding,) = audit_partition(workspace, "caf/other")
    assert finding.kind == "not_enhanced"
    assert not finding.is_error
    with pytest.raises(DataError, match="CAF partition"):
        audit_partition(workspace, "ffhq_aging")
    with pytest.raises(DataError, match="shard folder"):
        audit_partition(workspace, "caf/../../elsewhere")


def test_a_shard_that_is_being_enhanced_is_not_audited(workspace):
    lock = workspace.state / "locks" / "stages" / f"enhance {PARTITION}.lock"
    with exclusive_lock(lock, "a test"), pytest.raises(StageError, match="another process holds"):
        audit_partition(workspace, PARTITION)


def test_every_kind_says_what_to_do():
    assert not set(ERRORS) & set(NOTES)
    for kind in (*ERRORS, *NOTES):
        assert Finding(kind, None, "p", "e", "f").what_to_do


def test_the_audit_needs_no_networks(finished):
    code = (
        "import sys; from pathlib import Path; from agetf_pipeline.core.workspace import Workspace;"
        "from agetf_pipeline.enhance.audit import audit_partition;"
        f"assert audit_partition(Workspace(Path({str(finished)!r})), {PARTITION!r}) == [];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
