"""One thing broken in the tables or in a link between them: `agetf verify` names that, and only it.

Each case breaks the files for real, and says what has to be found.
"""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from verified_workspace import CAF, FFHQ, VERSION, change, copied, make_config, tree

from agetf_pipeline.captions.cache import ensure_index, index_path
from agetf_pipeline.data.schemas import (
    CAPTIONS,
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    PREDICTIONS,
    QUARANTINE,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import read_table, table_path, write_parquet
from agetf_pipeline.upkeep.verify import verify_workspace

TABLES = "data/tables"
CHANGED = "files/output_changed"
DAMAGES = {}


def damage(function):
    """Register a case: it breaks one thing and returns what is to be found: (check, where)."""
    DAMAGES[function.__name__] = function
    return function


def rewrite(workspace, spec, partition, table):
    """Write rows that `write_table` would refuse."""
    write_parquet(table_path(workspace, spec, partition), table)


def stored(workspace, spec, partition):
    return pq.read_table(table_path(workspace, spec, partition))


def name_of(spec, partition):
    return f"{TABLES}/{spec.name}/{partition}.parquet"


MANIFEST = name_of(TRAINING_MANIFEST, "all")


def with_values(workspace, spec, partition, **values):
    """Put values into the first row, whatever the schema's rules say of them."""
    frame = read_table(workspace, spec, [partition])
    first = pl.int_range(pl.len()) == 0
    frame = frame.with_columns(
        pl.when(first).then(pl.lit(value, frame.schema[column])).otherwise(column).alias(column)
        for column, value in values.items()
    )
    change(workspace, spec, partition, frame)


@damage
def a_flipped_byte_in_a_page(workspace):
    path = table_path(workspace, PREDICTIONS, FFHQ)
    column = pq.read_metadata(path).row_group(0).column(5)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size - 2] ^= 0x10
    path.write_bytes(data)
    where = name_of(PREDICTIONS, FFHQ)
    return {("tables/unreadable", where), (CHANGED, where)}


@damage
def a_truncated_table(workspace):
    path = table_path(workspace, KEEP_LIST, CAF)
    path.write_bytes(path.read_bytes()[:-20])
    where = name_of(KEEP_LIST, CAF)
    return {("tables/unreadable", where), (CHANGED, where)}


@damage
def another_type(workspace):
    table = stored(workspace, KEEP_LIST, CAF)
    place = table.schema.get_field_index("curriculum_weight")
    wide = table.column(place).cast(pa.float64())
    rewrite(workspace, KEEP_LIST, CAF, table.set_column(place, "curriculum_weight", wide))
    where = name_of(KEEP_LIST, CAF)
    return {("tables/schema", where), (CHANGED, where)}


@damage
def a_missing_column(workspace):
    table = stored(workspace, LABELS, FFHQ).drop_columns(["reliability"])
    rewrite(workspace, LABELS, FFHQ, table)
    where = name_of(LABELS, FFHQ)
    return {("tables/schema", where), (CHANGED, where)}


@damage
def swapped_rows(workspace):
    table = stored(workspace, LABELS, CAF)
    rewrite(workspace, LABELS, CAF, table.take([1, 0, 2, 3]))
    where = name_of(LABELS, CAF)
    return {("tables/order", where), (CHANGED, where)}


@damage
def a_duplicate_key(workspace):
    table = stored(workspace, LABELS, CAF)
    rewrite(workspace, LABELS, CAF, table.take([0, 0, 1, 2, 3]))
    where = name_of(LABELS, CAF)
    return {("tables/duplicate_key", where), (CHANGED, where)}


@damage
def another_partition_in_the_rows(workspace):
    frame = read_table(workspace, QUARANTINE, [CAF])
    change(workspace, QUARANTINE, CAF, frame.with_columns(partition=pl.lit("caf/two")))
    where = name_of(QUARANTINE, CAF)
    return {("tables/partition", where), (CHANGED, where)}


@damage
def an_unknown_word(workspace):
    with_values(workspace, LABELS, CAF, decision="perhaps")
    where = name_of(LABELS, CAF)
    return {("tables/value", where), (CHANGED, where)}


@damage
def a_number_that_is_none(workspace):
    with_values(workspace, LABELS, CAF, variance_years2=float("nan"))
    where = name_of(LABELS, CAF)
    return {("tables/value", where), (CHANGED, where)}


@damage
def an_age_out_of_range(workspace):
    with_values(workspace, PREDICTIONS, CAF, age_years=430.0)
    where = name_of(PREDICTIONS, CAF)
    return {("tables/value", where), (CHANGED, where)}


@damage
def a_reading_without_an_age(workspace):
    with_values(workspace, PREDICTIONS, CAF, age_years=None)
    where = name_of(PREDICTIONS, CAF)
    return {("tables/value", where), (CHANGED, where)}


@damage
def experts_that_are_no_json(workspace):
    with_values(workspace, LABELS, FFHQ, experts="{")
    where = name_of(LABELS, FFHQ)
    return {("tables/value", where), (CHANGED, where)}


@damage
def infinite_embeddings(workspace):
    rows = read_table(workspace, CAPTIONS, [CAF]).to_dicts()
    rows[0]["text_embedding"] = [float("inf")] * 8
    schema = read_table(workspace, CAPTIONS, [CAF]).schema
    change(workspace, CAPTIONS, CAF, pl.DataFrame(rows, schema=schema))
    index = ensure_index(workspace, CAF, VERSION)
    where = name_of(CAPTIONS, CAF)
    return {("tables/value", where), (CHANGED, where), (CHANGED, workspace.relative(index))}


@damage
def a_distribution_that_sums_to_two(workspace):
    with_values(workspace, PREDICTIONS, CAF, distribution=[2 / 101] * 101)
    where = name_of(PREDICTIONS, CAF)
    return {("tables/distribution", where), (CHANGED, where)}


@damage
def a_distribution_of_a_hundred(workspace):
    with_values(workspace, PREDICTIONS, CAF, distribution=[1 / 100] * 100)
    where = name_of(PREDICTIONS, CAF)
    return {("tables/distribution", where), (CHANGED, where)}


@damage
def an_unknown_table(workspace):
    path = workspace.tables / "notes" / "ffhq_aging.parquet"
    path.parent.mkdir()
    path.write_bytes(b"?")
    return {("tables/unknown", f"{TABLES}/notes/ffhq_aging.parquet")}


@damage
def a_badly_named_partition(workspace):
    path = table_path(workspace, LABELS, CAF)
    path.with_name("one copy.parquet").write_bytes(path.read_bytes())
    return {("tables/badly_named", f"{TABLES}/labels/caf/one copy.parquet")}


@damage
def a_deleted_photograph(workspace):
    (workspace.raw_caf / "one" / "01.png").unlink()
    return {("links/original_missing", "data/raw/caf/one/01.png")}


@damage
def an_altered_photograph(workspace):
    path = workspace.raw_ffhq / "00000" / "00001.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    return {("links/original_altered", "data/raw/ffhq_aging/00000/00001.png")}


@damage
def a_new_photograph(workspace):
    (workspace.raw_caf / "one" / "new.png").write_bytes(b"new")
    return {("links/not_ingested", "data/raw/caf/one/new.png")}


@damage
def a_corpus_that_went_away(workspace):
    folder = workspace.raw_caf / "one"
    folder.rename(workspace.root / "elsewhere")
    return {("links/corpus_missing", "data/raw/caf/one")}


@damage
def a_file_taken_and_refused(workspace):
    frame = read_table(workspace, QUARANTINE, [CAF])
    kept = "data/raw/caf/one/02.png"
    row = frame.head(1).with_columns(path=pl.lit(kept), reason=pl.lit("truncated"))
    change(workspace, QUARANTINE, CAF, pl.concat([frame, row]))
    return {("links/taken_and_refused", kept), (CHANGED, name_of(QUARANTINE, CAF))}


@damage
def a_duplicate_of_nothing(workspace):
    frame = read_table(workspace, QUARANTINE, [CAF])
    lost = "data/raw/caf/two/gone.png"
    twin = pl.col("reason") == "duplicate"
    other = pl.when(twin).then(pl.lit(lost)).otherwise("duplicate_of")
    change(workspace, QUARANTINE, CAF, frame.with_columns(duplicate_of=other))
    return {("links/duplicate_of", lost), (CHANGED, name_of(QUARANTINE, CAF))}


def first_face(workspace):
    return read_table(workspace, IMAGES, [FFHQ])["face_path"][0]


@damage
def a_deleted_crop(workspace):
    face = first_face(workspace)
    workspace.resolve(face).unlink()
    return {("links/face_missing", face)}


@damage
def an_altered_crop(workspace):
    face = first_face(workspace)
    Image.new("RGB", (32, 32)).save(workspace.resolve(face))
    return {("links/face_altered", face)}


@damage
def a_crop_of_another_size(workspace):
    face = first_face(workspace)
    Image.new("RGB", (31, 32)).save(workspace.resolve(face))
    return {("links/face_size", face)}


@damage
def a_missing_prediction(workspace):
    frame = read_table(workspace, PREDICTIONS, [CAF])
    change(workspace, PREDICTIONS, CAF, frame.slice(1))
    where = name_of(PREDICTIONS, CAF)
    return {("links/gap", where), (CHANGED, where)}


@damage
def predictions_of_no_image(workspace):
    frame = read_table(workspace, PREDICTIONS, [CAF])
    stale = frame.head(2).with_columns(image_id=pl.lit("0" * 64))
    change(workspace, PREDICTIONS, CAF, pl.concat([frame, stale]))
    where = name_of(PREDICTIONS, CAF)
    return {("links/stale_row", where), (CHANGED, where)}


@damage
def predictions_of_another_expert(workspace):
    frame = read_table(workspace, PREDICTIONS, [CAF])
    other = frame.head(1).with_columns(expert=pl.lit("oracle"))
    change(workspace, PREDICTIONS, CAF, pl.concat([frame, other]))
    where = name_of(PREDICTIONS, CAF)
    return {("links/other_expert", where), (CHANGED, where)}


@damage
def a_missing_label(workspace):
    change(workspace, LABELS, CAF, read_table(workspace, LABELS, [CAF]).slice(1))
    where = name_of(LABELS, CAF)
    return {("links/gap", where), (CHANGED, where)}


@damage
def a_missing_table(workspace):
    table_path(workspace, LABELS, CAF).unlink()
    where = name_of(LABELS, CAF)
    return {("links/table_missing", where), ("files/output_missing", where)}


@damage
def tables_without_images(workspace):
    table_path(workspace, IMAGES, FFHQ).unlink()
    where = name_of(IMAGES, FFHQ)
    return {("links/no_images", where), ("files/output_missing", where)}


@damage
def an_image_in_two_partitions(workspace):
    frame = read_table(workspace, IMAGES, [FFHQ])
    twin = read_table(workspace, IMAGES, [CAF]).slice(1, 1).with_columns(partition=pl.lit(FFHQ))
    change(workspace, IMAGES, FFHQ, pl.concat([frame, twin]))
    where = name_of(IMAGES, CAF)
    gaps = {("links/gap", name_of(spec, FFHQ)) for spec in (PREDICTIONS, CAPTIONS)}
    return {("links/two_partitions", where), (CHANGED, name_of(IMAGES, FFHQ)), *gaps}


@damage
def a_check_of_another_copy(workspace):
    with_values(workspace, ENHANCED_AGES, CAF, enhanced_sha256="0" * 64)
    where = name_of(ENHANCED_AGES, CAF)
    return {("links/other_copy", where), (CHANGED, where)}


def first_copy(workspace, column):
    return read_table(workspace, ENHANCED, [CAF])[column][0]


@damage
def an_altered_enhanced_picture(workspace):
    path = first_copy(workspace, "enhanced_path")
    with workspace.resolve(path).open("ab") as stream:
        stream.write(b"!")
    return {("links/enhanced_picture_altered", path)}


@damage
def a_deleted_sidecar(workspace):
    path = first_copy(workspace, "sidecar_path")
    workspace.resolve(path).unlink()
    return {("links/enhanced_sidecar_missing", path)}


@damage
def an_image_without_a_copy(workspace):
    frame = read_table(workspace, ENHANCED, [CAF])
    lost = frame.row(0, named=True)
    change(workspace, ENHANCED, CAF, frame.slice(1))
    original = read_table(workspace, IMAGES, [CAF]).filter(image_id=lost["image_id"])["path"][0]
    return {
        ("links/enhanced_gap", original),
        (CHANGED, name_of(ENHANCED, CAF)),
        ("files/orphan", lost["enhanced_path"]),
        ("files/orphan", lost["sidecar_path"]),
        ("links/manifest_path", MANIFEST),
    }


@damage
def a_missing_table_of_copies(workspace):
    table_path(workspace, ENHANCED, CAF).unlink()
    where = name_of(ENHANCED, CAF)
    lost = {("links/table_missing", where), ("files/output_missing", where)}
    return {*lost, ("links/manifest_path", MANIFEST)}


@damage
def a_damaged_table_of_copies(workspace):
    path = table_path(workspace, ENHANCED, CAF)
    path.write_bytes(path.read_bytes()[:-30])
    where = name_of(ENHANCED, CAF)
    return {("tables/unreadable", where), (CHANGED, where)}


def first_grid(workspace):
    return read_table(workspace, CAPTIONS, [FFHQ])["token_grid_path"][0]


@damage
def a_deleted_token_grid(workspace):
    path = first_grid(workspace)
    workspace.resolve(path).unlink()
    return {("links/token_grid", path)}


@damage
def a_truncated_token_grid(workspace):
    path = first_grid(workspace)
    file = workspace.resolve(path)
    file.write_bytes(file.read_bytes()[:-2])
    return {("links/token_grid", path)}


@damage
def a_token_grid_of_another_width(workspace):
    path = first_grid(workspace)
    np.save(workspace.resolve(path), np.zeros((4, 7), np.float16))
    return {("links/token_grid", path)}


@damage
def damaged_embeddings(workspace):
    path = index_path(workspace, CAF, VERSION)
    path.write_bytes(b"ARROW1")
    where = workspace.relative(path)
    return {("links/embeddings_index", where), (CHANGED, where)}


@damage
def a_missing_caption(workspace):
    change(workspace, CAPTIONS, CAF, read_table(workspace, CAPTIONS, [CAF]).slice(1))
    where, index = name_of(CAPTIONS, CAF), index_path(workspace, CAF, VERSION)
    grid = {("files/orphan", path) for path in _unnamed_grids(workspace)}
    stale = {("links/embeddings_index", workspace.relative(index))}
    return {("links/gap", where), (CHANGED, where), *grid, *stale}


def _unnamed_grids(workspace):
    named = set(read_table(workspace, CAPTIONS)["token_grid_path"].to_list())
    folder = workspace.root / "data" / "cache" / "captions" / "token_grids"
    found = {workspace.relative(path) for path in folder.rglob("*.npy")}
    return found - named


@damage
def a_dropped_image_in_training(workspace):
    frame = read_table(workspace, KEEP_LIST, [CAF])
    dropped = frame.with_columns(keep=pl.int_range(pl.len()) > 0)
    change(workspace, KEEP_LIST, CAF, dropped)
    return {("links/not_kept", MANIFEST), (CHANGED, name_of(KEEP_LIST, CAF))}


@damage
def a_kept_image_not_in_training(workspace):
    frame = read_table(workspace, TRAINING_MANIFEST)
    change(workspace, TRAINING_MANIFEST, "all", frame.slice(1))
    return {("links/gap", MANIFEST), (CHANGED, MANIFEST)}


@damage
def a_partition_not_in_training(workspace):
    frame = read_table(workspace, TRAINING_MANIFEST)
    change(workspace, TRAINING_MANIFEST, "all", frame.filter(partition=CAF))
    return {("links/not_assembled", MANIFEST), (CHANGED, MANIFEST)}


@damage
def a_person_in_two_splits(workspace):
    frame = read_table(workspace, TRAINING_MANIFEST)
    split = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("test")).otherwise("split")
    frame = frame.with_columns(identity=pl.lit("anna"), split=split)
    change(workspace, TRAINING_MANIFEST, "all", frame)
    return {("links/identity_in_two_splits", MANIFEST), (CHANGED, MANIFEST)}


@damage
def another_images_face(workspace):
    frame = read_table(workspace, TRAINING_MANIFEST)
    faces = frame["face_path"].to_list()
    change(workspace, TRAINING_MANIFEST, "all",
           frame.with_columns(face_path=pl.Series([faces[1], *faces[1:]])))  # fmt: skip
    return {("links/manifest_path", MANIFEST), (CHANGED, MANIFEST)}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_one_damage_is_found_and_nothing_else(name, tmp_path, tmp_path_factory):
    workspace = copied(tmp_path_factory, tmp_path / "w")
    config = make_config(workspace.root)
    expected = DAMAGES[name](workspace)
    before = tree(workspace.root)
    result = verify_workspace(config, workspace)
    found = {(f.check, f.where) for f in result.findings if f.severity != "note"}
    assert found == expected
    assert tree(workspace.root) == before, "verifying changed something"
    assert all(f.remedy.endswith(".") and f.found for f in result.findings)
