"""A disk that fills, for real, while stages write: one message, nothing lost, and on with it."""

import shutil
from pathlib import Path

import enhanced_shard
import numpy as np
import pytest
import training_workspace
from PIL import Image
from small_disk import NEEDS_MOUNT, fill, small_disk
from small_registry import agetf, make_registry
from tiny_shards import write_config, write_shard

from agetf_pipeline.cli import main
from agetf_pipeline.config.ingest import ImageLimits
from agetf_pipeline.core.errors import AgetfError, StorageError
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.schemas import TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.stages import distill, enhance, train
from agetf_pipeline.synthetic.faces import draw_face, draw_identity
from agetf_pipeline.training.dataset import load_face_data

pytestmark = NEEDS_MOUNT

MB = 1 << 20


def files_of(root: Path, *patterns: str) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hash_file(path)
        for pattern in patterns
        for path in sorted(root.rglob(pattern))
        if path.is_file()
    }


def assert_tidy(root: Path) -> None:
    assert list(root.rglob(".tmp-*")) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    with small_disk(tmp_path / "disk", MB) as disk:
        path = disk / "folder" / "table.bin"
        write_bytes(path, b"old")
        filler = fill(disk, 16_384)
        with pytest.raises(StorageError) as caught:
            write_bytes(path, b"new" * 100_000)
        message = str(caught.value)
        assert str(path) in message
        assert "No space left on device" in message
        assert f"free in {path.parent}" in message
        assert "run the same again: what was finished is kept" in message
        assert path.read_bytes() == b"old"
        assert_tidy(disk)
        filler.unlink()
        write_bytes(path, b"new" * 100_000)
        assert path.stat().st_size == 300_000


def ingest(config: Path) -> int:
    return main(["ingest", "--config", str(config), "--quiet"])


def test_ingest_on_a_disk_that_fills_goes_on_where_it_was(tmp_path, capsys):
    def make(root: Path, name: str) -> Path:
        for number in range(3):
            write_shard(Workspace(root), f"shard-{number}", seed=number, num_images=4)
        return write_config(tmp_path / name, root, "ingest: {chunk_size: 1}\n")

    undisturbed = tmp_path / "undisturbed"
    assert ingest(make(undisturbed, "a")) == 0
    with small_disk(tmp_path / "disk", 4 * MB) as disk:
        root = disk / "workspace"
        config = make(root, "b")
        stopped = []
        for room in (0, 8192, 24_576, 49_152, 98_304):
            filler = fill(disk, room)
            capsys.readouterr()
            stopped.append(ingest(config))
            printed = capsys.readouterr().err
            if stopped[-1]:
                assert stopped[-1] == 1
                assert "No space left on device" in printed
                assert "what was finished is kept" in printed
                assert "Traceback" not in printed
            assert_tidy(root)
            filler.unlink()
        assert stopped[0] == 1
        assert sum(stopped) > 1
        assert ingest(config) == 0
        tables = files_of(root, "data/tables/**/*.parquet")
        assert tables
        assert tables == files_of(undisturbed, "data/tables/**/*.parquet")
        assert not (tmp_path / "disk" / "workspace" / "stats" / "quarantine").is_dir() or all(
            len(path.read_text().splitlines()) == 1
            for path in (root / "stats" / "quarantine").rglob("*.csv")
        )


def test_enhancing_on_a_disk_that_fills_goes_on_where_it_was(tmp_path):
    made = enhanced_shard.make_workspace(tmp_path / "made", 6)
    config = enhanced_shard.make_config()
    with small_disk(tmp_path / "disk", 16 * MB) as disk:
        root = disk / "workspace"
        shutil.copytree(made.root, root)
        enhance.run(config, made, enhanced_shard.PARTITION)
        stopped = 0
        for room in (0, 16_384, 65_536):
            filler = fill(disk, room)
            try:
                enhance.run(config, Workspace(root), enhanced_shard.PARTITION)
            except StorageError:
                stopped += 1
            assert_tidy(root)
            filler.unlink()
        assert stopped > 1
        enhance.run(config, Workspace(root), enhanced_shard.PARTITION)
        patterns = ("data/tables/**/*.parquet", "data/processed/**/*.png")
        assert files_of(root, *patterns) == files_of(made.root, *patterns)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    changes = {"num_images": 12, "checkpoint_every_s": 1e-9, "validate_every_images": 0}
    config = training_workspace.make_config(**changes)
    made = training_workspace.make_workspace(tmp_path / "made")
    distill.run(config, made)
    with small_disk(tmp_path / "disk", 256 * MB) as disk:
        workspace = Workspace(disk / "workspace")
        shutil.copytree(made.root, workspace.root)
        train.run(config, made)
        filler = fill(disk, checkpoint_bytes(tmp_path / "made") * 2)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            train.run(config, workspace)
        assert "checkpoints" in str(caught.value)
        assert_tidy(disk)
        whole = [path.parent for path in disk.rglob("checkpoints/images-*/state.json")]
        assert len(whole) >= 1
        filler.unlink()
        train.run(config, workspace)
        patterns = ("models/**/*.safetensors", "outputs/**/metrics.csv")
        assert files_of(workspace.root, *patterns) == files_of(made.root, *patterns)


def checkpoint_bytes(root: Path) -> int:
    """Return about what a checkpoint of the finished run takes, optimisers included."""
    weights = max(path.stat().st_size for path in root.rglob("model.safetensors"))
    return 3 * weights


def test_the_registry_on_a_full_disk_says_so_and_keeps_its_champion(tmp_path, capsys):
    with small_disk(tmp_path / "disk", 8 * MB) as disk:
        workspace = make_registry(disk / "workspace", 2)
        assert agetf(workspace, "promote", "1", "--reason", "the first") == 0
        filler = fill(disk)
        capsys.readouterr()
        assert agetf(workspace, "promote", "2", "--reason", "no room") == 1
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        assert "disk is full" in printed or "No space left" in printed
        filler.unlink()
        assert agetf(workspace, "show", "champion") == 0
        assert "version 1" in capsys.readouterr().out.lower()
        assert agetf(workspace, "promote", "2", "--reason", "now there is room") == 0


def test_every_command_ends_with_the_message_and_not_with_a_traceback(tmp_path, capsys):
    """A writer that is not ours, pyarrow without a path of ours, ends the same way."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from safetensors.torch import save_file

    from agetf_pipeline.core.ending import describe_ending

    zeros = np.random.default_rng(0).integers(0, 255, 3 * MB, dtype=np.uint8)

    def with_numpy(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, zeros)

    writers = {
        "pyarrow": lambda path: pq.write_table(pa.table({"a": zeros}), path),
        "torch": lambda path: torch.save({"a": torch.from_numpy(zeros)}, path),
        "safetensors": lambda path: save_file({"a": torch.from_numpy(zeros)}, path),
        "numpy": with_numpy,
        "plain": lambda path: path.write_bytes(zeros.tobytes()),
    }
    with small_disk(tmp_path / "disk", MB) as disk:
        for name, write in writers.items():
            with pytest.raises(Exception) as caught:
                write(disk / name)
            assert not isinstance(caught.value, AgetfError)
            ending = describe_ending(caught.value, disk)
            assert ending is not None, (name, repr(caught.value))
            assert ending[1] == 1
            assert "No space left on device" in ending[0], name
            (disk / name).unlink(missing_ok=True)


def test_a_crop_that_does_not_fit_is_no_bad_picture(tmp_path):
    photograph = tmp_path / "photograph.png"
    face = draw_face(draw_identity(1), 35.0, 160)
    Image.fromarray(np.pad(face, ((80, 80), (80, 80), (0, 0)), mode="edge")).save(photograph)
    with (
        small_disk(tmp_path / "disk", 8 * MB) as disk,
        ExaminePool(ImageLimits(), 64, 1, 60.0) as pool,
    ):
        request = Request(photograph, disk / "crop.png")
        (answer,) = pool.examine([request])
        if answer["reason"] == "no_face":
            pytest.fail("the drawn face was not found: draw another")
        (disk / "crop.png").unlink()
        filler = fill(disk)
        with pytest.raises(StorageError, match="No space left on device"):
            pool.examine([request])
        assert_tidy(disk)
        filler.unlink()
        assert pool.examine([request]) == [answer]


def test_a_file_written_through_memory_has_its_room_first(tmp_path):
    """Without that, the kernel kills who writes to a page that the disk has no room for."""
    made = training_workspace.make_workspace(tmp_path / "made")
    with small_disk(tmp_path / "disk", MB) as disk:
        workspace = Workspace(disk / "workspace")
        shutil.copytree(made.root, workspace.root)
        manifest = read_table(workspace, TRAINING_MANIFEST)
        filler = fill(disk, 20_480)  # eight faces of 64 px take 98 kB
        with pytest.raises(StorageError, match="No space left on device"):
            load_face_data(workspace, manifest, 64, "train")
        assert_tidy(workspace.root)
        filler.unlink()
        data = load_face_data(workspace, manifest, 64, "train")
        assert data.images.shape == (8, 64, 64, 3)
