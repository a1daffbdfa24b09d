"""The stages `train_enhancers` and `enhance` on a handful of drawn faces."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import StageError, StorageError, WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_card, read_state, save_weights
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import ENHANCED, IMAGES
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table
from agetf_pipeline.enhance.outputs import CONTACT_SHEET, enhanced_folder
from agetf_pipeline.stages import enhance, train_enhancers
from agetf_pipeline.synthetic.degrade import degrade
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

PARTITION = "caf/one"
KINDS: list[list[str]] = [[], ["grey"], ["low_res"], ["blur"], ["jpeg"], ["grey", "low_res"]]


def make_config(**sections: dict) -> PipelineConfig:
    values: dict[str, dict] = {
        "synthesize": {"enabled": True},
        "runtime": {"device": "cpu", "num_threads": 1},
        "train_enhancers": {
            "ddcolor": {"size": "tiny", "input_px": 64, "num_steps": 2, "batch_size": 4},
            "esrgan": {
                "arch": "srvgg", "size": "tiny", "scale": 2, "num_steps": 2, "batch_size": 4,
                "patch_px": 16,
            },
        },
        "enhance": {
            "target_px": 128, "chunk_size": 4, "min_sharpness": 0.04, "max_blockiness": 1.6,
        },
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return PipelineConfig.model_validate(values)


def add_images(workspace: Workspace, partition: str, pictures: list[np.ndarray]) -> None:
    rows = []
    for number, picture in enumerate(pictures):
        path = workspace.root / "data" / "raw" / partition / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        grey = bool((picture == picture[..., :1]).all())
        height, width = picture.shape[:2]
        row = dict.fromkeys(IMAGES.schema.names)
        row |= {"image_id": hash_file(path), "partition": partition, "raw_name": path.name}
        row |= {"path": workspace.relative(path), "face_path": workspace.relative(path)}
        row |= {"format": "PNG", "mode": "RGB", "num_bytes": 1, "is_grey": grey, "flags": []}
        row |= {"width_px": width, "height_px": height}
        row |= {"stored_width_px": width, "stored_height_px": height}
        rows.append(row)
    write_table(workspace, IMAGES, partition, to_frame(rows, IMAGES))


def caf_pictures(number: int = len(KINDS)) -> list[np.ndarray]:
    return [
        degrade(draw_face(draw_identity(i), 40.0, 128), kinds, np.random.default_rng(i))
        for i, kinds in enumerate(KINDS[:number])
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the two networks, trained for two steps."""
    workspace = Workspace(tmp_path_factory.mktemp("trained"))
    faces = [draw_face(draw_identity(100 + i), 30.0, 64) for i in range(10)]
    add_images(workspace, FFHQ_PARTITION, faces)
    report = train_enhancers.run(make_config(), workspace)
    assert report.counts["num_train_images"] == 9
    assert set(report.outputs) == {
        "ddcolor", "esrgan", "ddcolor_trained_on", "esrgan_trained_on"
    }  # fmt: skip
    assert not list((workspace.state / "fit").glob("*"))
    assert train_enhancers.run(make_config(), workspace).status == "skipped"
    return workspace.root


@pytest.fixture
def workspace(tmp_path, trained) -> Workspace:
    workspace = Workspace(tmp_path)
    folder = workspace.models / "enhance"
    folder.mkdir(parents=True)
    for name in ("ddcolor", "esrgan"):
        source = trained / "models" / "enhance" / f"{name}.safetensors"
        (folder / source.name).write_bytes(source.read_bytes())
    add_images(workspace, PARTITION, caf_pictures())
    return workspace


def files_of(workspace: Workspace) -> dict[str, tuple[str, int]]:
    folder = enhanced_folder(workspace, PARTITION)
    return {path.name: (hash_file(path), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_every_image_gets_a_copy_a_sidecar_and_a_reason(workspace):
    report = enhance.run(make_config(), workspace, PARTITION)
    rows = read_table(workspace, ENHANCED, [PARTITION])
    images = read_table(workspace, IMAGES, [PARTITION]).sort("face_path")
    assert rows["status"].to_list() == ["ok"] * len(KINDS)
    done = dict(zip(rows["image_id"], rows.to_dicts(), strict=True))
    for row, kinds in zip(images.iter_rows(named=True), KINDS, strict=True):
        found = done[row["image_id"]]
        assert found["colourised"] == ("grey" in kinds), kinds
        assert found["super_resolved"] == bool({"low_res", "blur", "jpeg"} & set(kinds)), kinds
        picture = workspace.resolve(found["enhanced_path"])
        assert picture.name == f"{row['image_id']}.png"
        assert hash_file(picture) == found["enhanced_sha256"]
        assert Image.open(picture).size == (128, 128)
        sidecar = json.loads(workspace.resolve(found["sidecar_path"]).read_text())
        assert sidecar["original"]["sha256"] == row["image_id"]
        assert sidecar["output"]["sha256"] == found["enhanced_sha256"]
        assert sidecar["decision"]["reason"] == found["decision"]
        assert (sidecar["models"]["esrgan_version"] is not None) == found["super_resolved"]
    untouched = done[images["image_id"][0]]
    original = np.asarray(Image.open(workspace.resolve(images["face_path"][0])))
    copy = np.asarray(Image.open(workspace.resolve(untouched["enhanced_path"])))
    assert np.array_equal(original, copy)
    sheet = Image.open(enhanced_folder(workspace, PARTITION) / CONTACT_SHEET)
    assert sheet.width > 600
    assert any("synthetic" in message for message in report.messages)
    assert report.counts["num_passed_through"] == 1


def test_a_rerun_writes_nothing_and_a_damaged_file_is_made_again(workspace):
    enhance.run(make_config(), workspace, PARTITION)
    table = hash_file(table_path(workspace, ENHANCED, PARTITION))
    first = files_of(workspace)
    assert enhance.run(make_config(), workspace, PARTITION).status == "skipped"
    assert files_of(workspace) == first
    pngs = sorted(enhanced_folder(workspace, PARTITION).glob("*.png"))
    pngs[0].unlink()
    pngs[1].write_bytes(pngs[1].read_bytes()[:-20])
    report = enhance.run(make_config(), workspace, PARTITION)
    assert (report.counts["num_computed"], report.counts["num_reused"]) == (2, 4)
    assert hash_file(table_path(workspace, ENHANCED, PARTITION)) == table
    again = files_of(workspace)
    assert {name: digest for name, (digest, _) in again.items() if name.endswith(".png")} == {
        name: digest for name, (digest, _) in first.items() if name.endswith(".png")
    }
    kept = {path.stem for path in pngs[2:]}
    for name, state in first.items():
        if Path(name).stem in kept:
            assert again[name] == state


def test_another_network_touches_only_what_went_through_it(workspace):
    enhance.run(make_config(), workspace, PARTITION)
    path = workspace.models / "enhance" / "ddcolor.safetensors"
    from agetf_pipeline.core.weights import load_state
    from agetf_pipeline.enhance.ddcolor import SIZES, DDColor

    network = DDColor(SIZES["tiny"])
    load_state(network, read_state(path), "test")
    assert network.refine.bias is not None
    network.refine.bias.data += 5
    save_weights(path, network, read_card(path))
    report = enhance.run(make_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == sum("grey" in kinds for kinds in KINDS)


def test_images_that_come_go_or_break(workspace):
    enhance.run(make_config(), workspace, PARTITION)
    add_images(workspace, PARTITION, caf_pictures(5))
    broken = workspace.resolve(read_table(workspace, IMAGES, [PARTITION])["face_path"][0])
    data = broken.read_bytes()
    report = enhance.run(make_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == 0
    assert any("no longer" in message for message in report.messages)
    assert len(list(enhanced_folder(workspace, PARTITION).glob("*.png"))) == 5
    broken.write_bytes(b"not an image")
    forced = make_config(enhance={"colourise": "never"})
    report = enhance.run(forced, workspace, PARTITION)
    assert report.counts["num_failed"] == 1
    failed = read_table(workspace, ENHANCED, [PARTITION]).filter(pl.col("status") == "failed")
    assert "readable image" in failed["reason"][0]
    assert failed["enhanced_path"][0] is None
    strict = make_config(enhance={"colourise": "never", "max_failed_fraction": 0.1})
    with pytest.raises(StageError, match="max_failed_fraction"):
        enhance.run(strict, workspace, PARTITION)
    broken.write_bytes(data)
    report = enhance.run(strict, workspace, PARTITION)
    assert (report.counts["num_computed"], report.counts["num_failed"]) == (1, 0)


def test_untrained_weights_and_other_corpora_are_refused(workspace):
    with pytest.raises(StageError, match="CAF shard"):
        enhance.run(make_config(), workspace, FFHQ_PARTITION)
    from agetf_pipeline.enhance.esrgan import build_esrgan

    path = workspace.models / "enhance" / "esrgan.safetensors"
    save_weights(path, build_esrgan("srvgg", "tiny", 2), {})
    with pytest.raises(WeightsError, match="trained on"):
        enhance.run(make_config(), workspace, PARTITION)
    path.unlink()
    with pytest.raises(WeightsError, match="train_enhancers"):
        enhance.run(make_config(), workspace, PARTITION)
    with pytest.raises(StageError, match="at least 8 clean colour faces"):
        train_enhancers.run(make_config(), workspace)


def test_no_row_is_on_disk_before_its_picture_and_sidecar(workspace, monkeypatch):
    written = []
    rename = Path.replace

    def told(temporary: Path, path: Path) -> Path:
        if path.suffix == ".parquet" and "parts" in path.parts:
            for image_id in pl.read_parquet(temporary)["image_id"]:
                assert {f"{image_id}.png", f"{image_id}.json"} <= set(written)
        written.append(path.name)
        return rename(temporary, path)

    monkeypatch.setattr(Path, "replace", told)
    enhance.run(make_config(), workspace, PARTITION)
    made = [name for name in written if name.endswith(".parquet") and name != "todo.parquet"]
    assert len(made) == 3  # two chunks, and the table
    for png in (name for name in written if name.endswith(".png")):
        assert written.index(png) < written.index(png.replace(".png", ".json"))


def test_what_fails_while_writing_is_raised_and_leaves_no_row(workspace, monkeypatch):
    rename, outputs = Path.replace, []

    def full_disk(temporary: Path, path: Path) -> Path:
        if path.suffix in (".png", ".json") and path.parent == enhanced_folder(
            workspace, PARTITION
        ):
            outputs.append(path)
            if len(outputs) == 12:  # the sidecar of the sixth image
                raise OSError(28, "No space left on device")
        return rename(temporary, path)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        enhance.run(make_config(), workspace, PARTITION)
    assert not table_path(workspace, ENHANCED, PARTITION).exists()
    parts = list((workspace.state / "parts").rglob("*.parquet"))
    assert [pl.read_parquet(part).height for part in parts] == [4]  # the first chunk alone
    monkeypatch.undo()
    report = enhance.run(make_config(), workspace, PARTITION)
    assert (report.counts["num_reused"], report.counts["num_computed"]) == (4, 2)


def test_another_precision_or_engine_touches_only_what_went_through_it(workspace, monkeypatch):
    from agetf_pipeline.enhance import engine

    monkeypatch.setattr(engine, "computes_bf16", lambda device: True)
    enhance.run(make_config(), workspace, PARTITION)
    before = read_table(workspace, ENHANCED, [PARTITION])
    for config, suffix in (
        (make_config(runtime={"precision": "bf16"}), "-bf16"),
        (make_config(enhance={"engine": "realesrgan"}), "-realesrgan"),
    ):
        report = enhance.run(config, workspace, PARTITION)
        touched = before.filter(pl.col("colourised") | pl.col("super_resolved"))
        rows = read_table(workspace, ENHANCED, [PARTITION])
        assert report.counts["num_computed"] == touched.height
        versions = rows["esrgan_version"].drop_nulls()
        assert versions.str.ends_with(suffix).all()
        assert rows["settings_version"].equals(before["settings_version"])
    assert enhance.run(
        make_config(runtime={"precision": "bf16"}, enhance={"precision": "fp32"}),
        workspace,
        PARTITION,
    ).counts["num_computed"]
    assert read_table(workspace, ENHANCED, [PARTITION]).equals(before)
