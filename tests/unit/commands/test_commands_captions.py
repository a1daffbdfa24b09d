"""`agetf captions`: what it shows, writes, lists and removes, on a small workspace."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline import cli
from agetf_pipeline.captions.cache import ensure_index, index_path, open_embeddings
from agetf_pipeline.captions.origin import record_origin, recorded_origin
from agetf_pipeline.captions.token_grids import save_grid
from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table

NEW, OLD, FOREIGN = (
    CaptionVersion("modelb-1", "2222"),
    CaptionVersion("modelb-1", "1111"),
    CaptionVersion("modela-1", "1111"),
)
PARTITIONS = ("caf/shard-0000", "ffhq_aging")
SAYS = {
    NEW: ("A young man with {} hats.", "A man with {} hats."),
    OLD: ("Hat and man.", "Hat and man."),
    FOREIGN: ("A woman.\x1b[2J", "A woman.\x1b[2J"),
}


def write_captions(workspace: Workspace, versions: tuple[CaptionVersion, ...]) -> None:
    for partition in PARTITIONS:
        images, rows = [], []
        for number in range(6):
            path = workspace.root / "data" / "raw" / partition / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 10 * number + len(partition)
            Image.fromarray(np.full((20, 20, 3), shade, np.uint8)).save(path)
            image = dict.fromkeys(IMAGES.schema.names)
            image |= {"image_id": hash_file(path), "partition": partition}
            image |= {"path": workspace.relative(path), "face_path": workspace.relative(path)}
            image |= {"raw_name": path.name, "format": "PNG", "mode": "RGB", "num_bytes": 1}
            image |= {"is_grey": False, "flags": []}
            image |= dict.fromkeys(
                ("stored_width_px", "stored_height_px", "width_px", "height_px"), 20
            )
            images.append(image)
            for version in versions:
                raw, clean = (text.format(number) for text in SAYS[version])
                row = dict.fromkeys(CAPTIONS.schema.names)
                row |= {"image_id": image["image_id"], "prompt": f"Prompt {version.prompt_hash}"}
                row |= vars(version) | {"status": "ok", "raw_caption": raw, "caption": clean}
                row |= {"num_tokens": 5, "finished": True}
                vector = np.array([1, number, shade], np.float16)
                row |= {"image_embedding": vector, "text_embedding": vector + len(raw)}
                rows.append(row)
        write_table(workspace, IMAGES, partition, to_frame(images, IMAGES))
        write_table(workspace, CAPTIONS, partition, to_frame(rows, CAPTIONS))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    write_captions(workspace, tuple(SAYS))
    record_version(workspace, NEW, Request("Prompt 2222", 32))
    record_origin(workspace, NEW.model_version, "synthetic")
    for partition in PARTITIONS:
        for version in SAYS:
            ensure_index(workspace, partition, version)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "c.yaml").write_text("synthesize: {enabled: true}\n")
    return workspace


def run(workspace: Workspace, *arguments: str) -> int:
    config = ["--quiet", "--config", str(workspace.root / "configs" / "c.yaml")]
    return cli.main(["captions", *arguments, *config])


def test_show_prints_captions_and_what_was_removed(workspace, capsys):
    assert run(workspace, "show", "--n", "3", "--partition", "ffhq_aging") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    ids = read_table(workspace, IMAGES, ["ffhq_aging"])["image_id"].to_list()
    assert len({line.split()[0] for line in lines} & {image_id[:12] for image_id in ids}) == 3
    assert all(" hats." in line for line in lines[1:4])
    assert sum(line.endswith("  young") for line in lines) == 3
    assert "3 of 6 images of ffhq_aging; 6 have a usable caption" in printed
    assert "drawn (synthetic) faces" in printed


def test_another_version_is_shown_by_its_beginning_and_cannot_command_a_terminal(workspace, capsys):
    assert run(workspace, "show", "--version", "modela") == 0
    printed = capsys.readouterr().out
    assert "A woman.\N{REPLACEMENT CHARACTER}[2J" in printed
    assert "\x1b" not in printed
    assert run(workspace, "show", "--prompt-hash", "11") == 1
    assert "found 2 of: modela-1-1111, modelb-1-1111" in capsys.readouterr().err
    assert run(workspace, "show", "--version", "modelb", "--prompt-hash", "1") == 0
    assert "Hat and man." in capsys.readouterr().out


def test_show_writes_a_page(workspace, capsys):
    page = workspace.root / "out" / "page.html"
    assert run(workspace, "show", "--n", "4", "--flagged", "--out", str(page)) == 0
    text = page.read_text(encoding="utf-8")
    assert f"written: {page} (4 images)" in capsys.readouterr().out
    assert text.count("<article") == text.count("data:image/jpeg;base64,") == 4
    assert "“Prompt 2222”" in text
    assert "CAF shard-0000, FFHQ-Aging" in text


def test_what_is_not_there_is_said(workspace, capsys, tmp_path_factory):
    assert run(workspace, "show", "--partition", "caf/none") == 1
    assert "found them in caf/shard-0000, ffhq_aging" in capsys.readouterr().err
    empty = Workspace(tmp_path_factory.mktemp("empty"))
    (empty.root / "configs").mkdir()
    (empty.root / "configs" / "c.yaml").write_text("{}\n")
    for action in ("show", "prune"):
        assert run(empty, action) == 1
        assert "Run the stage `caption` first" in capsys.readouterr().err
    assert run(empty, "versions") == 0
    assert "no captions yet" in capsys.readouterr().out


def test_versions_lists_what_the_cache_holds(workspace, capsys):
    assert run(workspace, "versions") == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines[1:4]]
    assert cells[0][:4] == ["*", NEW.name, "12", "12"]
    assert [row[0] for row in cells[1:]] == [FOREIGN.name, OLD.name]
    assert lines[1].endswith("synthetic     Prompt 2222")
    assert "not recorded" in lines[2]


def test_prune_asks_first(workspace, capsys):
    before = read_table(workspace, CAPTIONS)
    assert run(workspace, "prune") == 1
    printed = capsys.readouterr().out
    assert f"{OLD.name}: 12 rows (caf/shard-0000 6, ffhq_aging 6)" in printed
    assert "add --yes" in printed
    assert read_table(workspace, CAPTIONS).equals(before)
    assert index_path(workspace, "ffhq_aging", OLD).exists()


def test_prune_keeps_the_version_in_use_byte_for_byte(workspace, tmp_path_factory, capsys):
    grid = np.ones((2, 3), np.float16)
    kept = save_grid(workspace, NEW.model_version, "aa", grid)
    gone = save_grid(workspace, FOREIGN.model_version, "aa", grid)
    record_origin(workspace, FOREIGN.model_version, "published")
    ids = read_table(workspace, IMAGES)["image_id"].to_list()
    vectors = open_embeddings(workspace, NEW).of(ids)
    assert run(workspace, "prune", "--yes") == 0
    assert f"kept: {NEW.name}, 12 rows" in capsys.readouterr().out
    # As if there had never been another version.
    alone = Workspace(tmp_path_factory.mktemp("alone"))
    write_captions(alone, (NEW,))
    for partition in PARTITIONS:
        tables = [table_path(each, CAPTIONS, partition) for each in (workspace, alone)]
        assert tables[0].read_bytes() == tables[1].read_bytes()
        ensure_index(alone, partition, NEW)
        files = [index_path(each, partition, NEW) for each in (workspace, alone)]
        assert files[0].read_bytes() == files[1].read_bytes()
        for version in (OLD, FOREIGN):
            assert not index_path(workspace, partition, version).exists()
    np.testing.assert_array_equal(open_embeddings(workspace, NEW).of(ids), vectors)
    assert kept.exists()
    assert not gone.exists()
    assert recorded_origin(workspace, NEW.model_version) == "synthetic"
    assert recorded_origin(workspace, FOREIGN.model_version) is None
    again = table_path(workspace, CAPTIONS, "ffhq_aging").stat().st_mtime_ns
    assert run(workspace, "prune", "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert table_path(workspace, CAPTIONS, "ffhq_aging").stat().st_mtime_ns == again


def test_prune_waits_for_rows_that_a_killed_run_left(workspace, capsys):
    part = workspace.state / "parts" / CAPTIONS.name / "caf" / "shard-0000" / "x.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rows")
    before = read_table(workspace, CAPTIONS)
    assert run(workspace, "prune", "--yes") == 1
    assert "Run the stage `caption` on it first" in capsys.readouterr().err
    assert read_table(workspace, CAPTIONS).equals(before)


def test_prune_names_partitions_that_would_lose_everything(workspace, capsys):
    record_version(workspace, CaptionVersion("modelc-1", "3333"), Request("?", 32))
    assert run(workspace, "prune") == 1
    printed = capsys.readouterr().out
    assert "caf/shard-0000, ffhq_aging: no caption is of the version in use" in printed
