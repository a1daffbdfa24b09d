import hashlib
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.schemas import (
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    PREDICTIONS,
    TRAINING_MANIFEST,
    TableSpec,
)
from agetf_pipeline.data.tables import ALL_PARTITIONS, to_frame, write_table
from agetf_pipeline.registry import reference
from agetf_pipeline.registry.reference import Reference
from agetf_pipeline.stages import evaluate, release, train_evaluators
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

SETTINGS = ModelSettings(32, 2, (8, 16), (1, 1), 1, 2, 16)
CAF = "caf/one"
CONFIG = {
    "synthesize": {"enabled": True},
    "train": {"run_name": "tiny"},
    "train_evaluators": {
        "num_steps": 2, "batch_size": 4, "width": 8, "num_identities": 3,
        "num_ages_per_identity": 2, "embedding_dim": 8,
    },
    "evaluate": {
        "num_faces": 8, "num_grid_faces": 3, "num_cases": 1, "num_bootstrap": 20, "min_cell": 3,
    },
}  # fmt: skip


def blank(spec: TableSpec, **values) -> dict:
    """A row with every column of the table: the given values, else zeros and nulls."""
    defaults = {"string": "", "bool": False, "int32": 0, "int64": 0, "float": 0.0}
    return {
        column.name: values.get(
            column.name,
            None if column.nullable else defaults.get(str(column.type), []),
        )
        for column in spec.schema
    }


def build(workspace: Workspace) -> None:
    """A workspace as after training: FFHQ images, degraded CAF images, tables and weights."""
    rows: dict[str, list] = {spec.name: [] for spec in (IMAGES, LABELS, PREDICTIONS, KEEP_LIST)}
    truth, manifest, enhanced, caf_images, ages_after = [], [], [], [], []
    for i in range(10):
        who, age = draw_identity(i), 5.0 + 9 * i
        path = f"data/raw/ffhq_aging/{i:05d}.png"
        image_id = _write(workspace, path, draw_face(who, age, 48))
        group = group_of(age)
        common = {"image_id": image_id, "partition": "ffhq_aging"}
        rows["images"].append(
            blank(IMAGES, **common, path=path, face_path=path, image_number=i, age_group=group)
        )
        rows["labels"].append(
            blank(
                LABELS, **common, age_years=age + 1, variance_years2=4.0, age_group=group,
                interval_low_years=age - 3, interval_high_years=age + 3, decision="keep",
            )
        )  # fmt: skip
        rows["predictions"] += [
            blank(PREDICTIONS, image_id=image_id, expert=name, status="ok", age_years=age + error)
            for name, error in (("mivolo", 2.0), ("vgg16", -3.0))
        ]
        rows["keep_list"].append(blank(KEEP_LIST, image_id=image_id, keep=True))
        manifest.append(
            blank(
                TRAINING_MANIFEST, **common, split="train" if i < 2 else "test", identity=who.name,
                face_path=path, age_years=age + 1, age_group=group, label_source="moe",
            )
        )  # fmt: skip
        truth.append((path, image_id, "ffhq_aging", who.name, age, [], path))
    for i in range(4):
        clean = draw_face(draw_identity(100 + i), 30.0, 48)
        clean_path, path = f"data/truth/clean/{i}.png", f"data/raw/caf/one/Jane Doe {i}.png"
        _write(workspace, clean_path, clean)
        small = np.asarray(Image.fromarray(clean).resize((16, 16)))
        image_id = _write(workspace, path, small)
        target = f"data/processed/caf_enhanced/one/{image_id}.png"
        _write(workspace, target, clean)
        caf_images.append(
            blank(IMAGES, image_id=image_id, partition=CAF, path=path, face_path=path)
        )
        enhanced.append(
            blank(ENHANCED, image_id=image_id, status="ok", enhanced_path=target, colourised=False)
        )
        ages_after.append(
            blank(ENHANCED_AGES, image_id=image_id, age_before_years=30.0, age_after_years=31.0)
        )
        manifest.append(
            blank(
                TRAINING_MANIFEST, image_id=image_id, partition=CAF, split="val",
                identity="caf:Jane Doe", face_path=path, enhanced_path=target, age_years=30.0 + i,
                age_group="30-39", label_source="corpus",
            )
        )  # fmt: skip
        truth.append((path, image_id, CAF, f"p{i}", 30.0, ["low_res"], clean_path))
    for spec in (IMAGES, LABELS, PREDICTIONS, KEEP_LIST):
        write_table(workspace, spec, "ffhq_aging", to_frame(rows[spec.name], spec))
    for spec, table in ((IMAGES, caf_images), (ENHANCED, enhanced), (ENHANCED_AGES, ages_after)):
        write_table(workspace, spec, CAF, to_frame(table, spec))
    write_table(workspace, TRAINING_MANIFEST, ALL_PARTITIONS, to_frame(manifest, TRAINING_MANIFEST))
    columns = ["path", "image_id", "partition", "identity", "true_age_years", "degradations",
               "clean_path"]  # fmt: skip
    workspace.truth.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(truth, schema=columns, orient="row")
    frame.write_parquet(workspace.truth / "truth.parquet")
    torch.manual_seed(0)
    path = workspace.models / "age_transformer" / "tiny" / "weights.safetensors"
    card = {"kind": KIND, "model": SETTINGS.to_card(), "trained_on": "synthetic"}
    save_weights(path, AgeTransformer(SETTINGS), card)


def _write(workspace: Workspace, path: str, rgb: np.ndarray) -> str:
    file = workspace.resolve(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def config_of(**sections) -> PipelineConfig:
    return PipelineConfig.model_validate({**CONFIG, **sections})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("evaluated"))
    build(workspace)
    train_evaluators.run(config_of(), workspace)
    evaluate.run(config_of(), workspace)
    return workspace


def test_needs_trained_weights(tmp_path):
    with pytest.raises(StageError, match="Run the stage train first"):
        evaluate.run(config_of(), Workspace(tmp_path))


def test_metrics_carry_sizes_intervals_and_the_word_synthetic(workspace):
    stored = read_json(workspace.experiments / "tiny" / "metrics.json")
    metrics = stored["metrics"]
    mixture = metrics["labels/mae_years/mixture"]
    assert mixture["value"] == pytest.approx(1.0, abs=1e-5)
    assert mixture["n"] == 10
    assert mixture["synthetic"] is True
    assert metrics["labels/mae_years/expert_vgg16"]["value"] == pytest.approx(3.0, abs=1e-5)
    assert metrics["labels/interval_coverage"]["value"] == 1.0
    assert metrics["enhancement/psnr/gain/low_res"]["value"] > 5
    assert metrics["renderings/age_mae_years"]["n"] == 8
    assert metrics["renderings/id_similarity"]["low"] is not None
    # FFHQ-Aging people can be drawn again; those of CAF were given other names here.
    assert metrics["renderings/truth_psnr"]["n"] == 7
    assert "of 8 people" in metrics["renderings/truth_psnr"]["note"]
    verdicts = {item["name"]: item["verdict"] for item in stored["must_hold"]}
    assert verdicts["mixture_near_best_expert"] == "holds"
    assert verdicts["enhancement_beats_bicubic"] == "holds"
    assert {"age_transformer", "judge: age_estimator"} <= set(stored["versions"])
    for name, item in metrics.items():
        assert (item["value"] is None) <= bool(item["reason"]), name


def test_every_judge_of_the_workspace_is_heard_and_the_absent_say_why(workspace):
    metrics = read_json(workspace.experiments / "tiny" / "metrics.json")["metrics"]
    for name in ("attributes_kept", "attributes_kept/glasses", "face_found_rate", "id_similarity"):
        assert metrics[f"renderings/{name}"]["n"] == 8
    assert metrics["real/attribute_accuracy/gender"]["n"] > 0
    assert "kid_own_features" in " ".join(metrics)
    for name, file in (("kid", "inception_weights"), ("fid", "inception_weights"),
                       ("source_lpips", "alexnet_weights")):  # fmt: skip
        assert metrics[f"renderings/{name}"]["value"] is None
        assert file in metrics[f"renderings/{name}"]["reason"]
    # This workspace has no experts: the mixture reads nothing, and says so.
    assert "calibration" in metrics["renderings/mixture_age_mae_years"]["reason"]
    # Eight faces of eight ages: cells of one are suppressed, the whole is there.
    assert metrics["renderings/age_mae_years/age_group=20-29"]["value"] is None


def reference_to(workspace: Workspace, change: float, folder: Path) -> Reference:
    """A registered version whose weights are those of the run, changed a little or not at all."""
    ours = workspace.models / "age_transformer" / "tiny" / "weights.safetensors"
    torch.manual_seed(0)
    model = AgeTransformer(SETTINGS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += change * torch.randn_like(parameter)
    path = folder / "weights.safetensors"
    save_weights(path, model, read_card(ours))
    return Reference("age-transformer", "7", hash_file(path), path)


@pytest.mark.parametrize("change", [0.0, 0.2])
def test_the_champion_renders_the_same_faces(workspace, tmp_path, monkeypatch, change):
    other = Workspace(tmp_path / "workspace")
    shutil.copytree(workspace.root, other.root)
    champion = reference_to(other, change, tmp_path)
    monkeypatch.setattr(reference, "champion_to_compare", lambda *_: champion)
    assert evaluate.run(config_of(), other).status == "ran"
    folder = other.experiments / "tiny"
    stored = read_json(folder / "metrics.json")
    assert stored["champion"] == {
        "model": "age-transformer", "version": "7", "weights_sha256": champion.sha256,
    }  # fmt: skip
    metrics = stored["metrics"]
    for name in ("age_mae_years", "id_similarity", "source_ssim", "face_found_rate"):
        ours, theirs = (metrics[f"{part}/{name}"]["value"] for part in ("renderings", "champion"))
        difference = metrics[f"against_champion/{name}"]
        assert difference["value"] == pytest.approx(ours - theirs, abs=1e-9)
        if change == 0:
            assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0)
    assert (metrics["against_champion/source_ssim"]["value"] != 0) == (change > 0)
    assert "against_champion/age_mae_years/age_group=20-29" in metrics
    assert metrics["against_champion/age_mae_years/target_age=95"]["n"] == 8
    assert "against_champion/sharpness_error" in metrics
    # Two groups have fewer than three real faces here, but the others do not.
    assert metrics["against_champion/kid_own_features"]["n"] > 0
    assert (folder / "champion.png").is_file()
    assert "Beside the champion" in (folder / "report.md").read_text()
    assert evaluate.run(config_of(), other).status == "skipped"
    alone = config_of(evaluate={**CONFIG["evaluate"], "compare_with_champion": False})
    assert evaluate.run(alone, other).status == "ran"
    assert read_json(folder / "metrics.json")["champion"] is None


def test_report_stands_alone(workspace):
    folder = workspace.experiments / "tiny"
    html = (folder / "report.html").read_text()
    # Too few pairs of people for a threshold, and a face or two a group: no pictures of those.
    assert html.count("data:image/png;base64,") == 6
    for outside in ("<script", "http://", "https://", "<link"):
        assert outside not in html
    assert "synthetic" in html
    assert "Holds." in html
    markdown = (folder / "report.md").read_text()
    assert "| mixture | 1.00 years" in markdown
    assert "![" in markdown
    kinds = pl.read_parquet(folder / "per_image.parquet")["kind"].value_counts()
    assert dict(kinds.rows()) == {"label": 10, "enhancement": 4, "rendering": 80}


def test_a_second_run_is_skipped_and_a_forced_one_writes_the_same_bytes(workspace):
    folder = workspace.experiments / "tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert evaluate.run(config_of(), workspace).status == "skipped"
    assert train_evaluators.run(config_of(), workspace).status == "skipped"
    (folder / "report.md").unlink()
    assert evaluate.run(config_of(), workspace).status == "ran"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_evaluators_and_truth_figures_are_null_with_reasons(tmp_path):
    workspace = Workspace(tmp_path)
    build(workspace)
    (workspace.truth / "truth.parquet").unlink()
    real = config_of(synthesize={"enabled": False})
    report = train_evaluators.run(real, workspace)
    assert any("no age estimator" in message for message in report.messages)
    assert any("0 labelled faces" in message for message in report.messages)
    evaluate.run(real, workspace)
    metrics = read_json(workspace.experiments / "tiny" / "metrics.json")["metrics"]
    for name in ("renderings/age_spearman", "renderings/id_similarity", "labels/mae_years/mixture",
                 "enhancement/psnr/gain"):  # fmt: skip
        assert metrics[name]["value"] is None
        assert metrics[name]["reason"]
    assert metrics["renderings/source_psnr"]["value"] > 0
    assert not any(item["synthetic"] for item in metrics.values())


def test_given_weights_are_taken_over(workspace, tmp_path):
    other = Workspace(tmp_path)
    given = {
        "age_estimator_weights": train_evaluators.evaluator_path(workspace, "age_estimator"),
        "identity_embedder_weights": train_evaluators.evaluator_path(
            workspace, "identity_embedder"
        ),
    }
    config = config_of(synthesize={"enabled": False}, train_evaluators=given)
    train_evaluators.run(config, other)
    for name in ("age_estimator", "identity_embedder"):
        copied = train_evaluators.evaluator_path(other, name).read_bytes()
        assert copied == train_evaluators.evaluator_path(workspace, name).read_bytes()


def test_release_holds_metadata_alone_and_its_checksums_verify(workspace):
    report = release.run(config_of(), workspace)
    folder = workspace.resolve(report.outputs["release"])
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not {name for name in files if name.endswith((".png", ".jpg", ".jpeg", ".webp"))}
    listed = {}
    for line in (folder / "checksums.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(listed) == files - {"checksums.sha256"}
    texts = [p.read_bytes() for p in folder.rglob("*")]
    assert not any(b"Jane Doe" in text for text in texts)
    splits = pl.read_csv(folder / "identity_splits.csv")
    assert splits.filter(pl.col("partition") == CAF)["identity"].n_unique() == 1
    assert len(read_json(folder / "ffhq_aging_relabelled.json")) == 10
    card = (folder / "DATASET_CARD.md").read_text()
    assert "Synthetic" in card
    assert "non-commercial" in card
    before = {name: (folder / name).read_bytes() for name in files}
    (folder / "stray.txt").write_text("x")
    assert release.run(config_of(), workspace).status == "ran"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_croissant_metadata_is_valid_and_loads_the_tables(workspace, tmp_path):
    import mlcroissant

    report = release.run(config_of(release={"version": "croissant"}), workspace)
    # Elsewhere, as for whoever downloads it.
    folder = tmp_path / "downloaded"
    shutil.copytree(workspace.resolve(report.outputs["release"]), folder)
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not dataset.metadata.issues.errors
    assert dataset.metadata.version == "croissant"
    assert "Synthetic" in dataset.metadata.description
    for name, num_rows in (("ffhq_aging_relabelled", 10), ("caf_enhanced", 4)):
        records = list(dataset.records(record_set=name))
        table = pl.read_parquet(folder / f"{name}.parquet")
        assert len(records) == table.height == num_rows
        assert [row[f"{name}/image_id"].decode() for row in records] == table["image_id"].to_list()
        assert {key.removeprefix(f"{name}/") for key in records[0]} == set(table.columns)
    ages = [row["ffhq_aging_relabelled/age_years"] for row in
            dataset.records(record_set="ffhq_aging_relabelled")]  # fmt: skip
    expected = pl.read_parquet(folder / "ffhq_aging_relabelled.parquet")["age_years"].to_list()
    assert ages == pytest.approx(expected)
    for file in dataset.metadata.distribution:
        assert hashlib.sha256((folder / file.content_url).read_bytes()).hexdigest() == file.sha256
    splits = dataset.records(record_set="caf_enhanced")
    assert {row["caf_enhanced/split"] for row in splits} == {b"val"}


def test_release_adds_enhanced_images_when_asked(workspace):
    config = config_of(release={"include_images": True, "version": "with-images"})
    report = release.run(config, workspace)
    folder = workspace.resolve(report.outputs["release"])
    assert len(list((folder / "images" / "one").glob("*.png"))) == 4
    assert any("pictures of people" in message for message in report.messages)
