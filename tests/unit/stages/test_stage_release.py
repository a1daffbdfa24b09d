"""What may leave, and what must not; that tables and Croissant load: see test_stage_evaluate.py."""

import hashlib
import json
import shutil
import stat

import polars as pl
import pytest
from test_stage_evaluate import CAF, build, config_of

from agetf_pipeline.core.errors import ConfigError, DataError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import ENHANCED, LABELS
from agetf_pipeline.data.tables import read_table, write_table
from agetf_pipeline.release import swapping, tables
from agetf_pipeline.stages import release

PATH = "/home/somebody/Jane Doe.png"
EXPERTS = {
    "mivolo": {"age_years": 30.0, "status": "ok", "reason": None},
    "vgg16": {"age_years": None, "status": "failed", "reason": f"OSError: {PATH}"},
    "resnet50": {"age_years": 9.0, "status": "masked", "reason": "answered 3 images"},
}


def figure(value: float | None, reason: str | None = None) -> dict:
    return {
        "value": value, "low": None, "high": None, "n": 40, "num_identities": 9, "unit": "years",
        "synthetic": False, "reason": reason, "note": None,
    }  # fmt: skip


METRICS = {
    "labels/mae_years/mixture": figure(4.0),
    "labels/mae_years/mixture/3-6": figure(2.5),
    "labels/mae_years/mixture/70-120": figure(None, "suppressed: n = 4 is below 30"),
    "labels/mae_years/mixture/gender=female": figure(4.5),
    "enhancement/psnr/gain": figure(None, f"no weights at {PATH}"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Workspace:
    """A workspace with a corpus of photographs, as far as it knows, of which files were lost."""
    workspace = Workspace(tmp_path_factory.mktemp("released"))
    build(workspace)
    unread = f"Expected a readable image at {PATH}; found: nothing. It was accepted by ingest."
    enhanced = read_table(workspace, ENHANCED, [CAF]).sort("image_id")
    messages = pl.Series([unread, f"SomeError: {PATH}", None, None], dtype=pl.String)
    enhanced = enhanced.with_columns(
        reason=messages,
        status=pl.when(messages.is_null()).then(pl.lit("ok")).otherwise(pl.lit("failed")),
        enhanced_path=pl.when(messages.is_null()).then(pl.col("enhanced_path")),
    )
    write_table(workspace, ENHANCED, CAF, enhanced)
    labels = read_table(workspace, LABELS, [FFHQ_PARTITION]).with_columns(
        reason=pl.lit(f"1 experts answered; 2 are needed (vgg16: OSError: {PATH})"),
        decision=pl.lit("unlabelled"),
        experts=pl.lit(json.dumps(EXPERTS)),
    )
    write_table(workspace, LABELS, FFHQ_PARTITION, labels)
    metrics = {"metrics": METRICS, "must_hold": [], "versions": {"age_transformer": "a" * 64}}
    write_json(workspace.experiments / "tiny" / "metrics.json", metrics)
    return workspace


@pytest.fixture
def workspace(built, tmp_path) -> Workspace:
    shutil.copytree(built.root, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def released(workspace: Workspace, **settings):
    config = config_of(synthesize={"enabled": False}, release=settings)
    return workspace.resolve(release.run(config, workspace).outputs["release"])


def contents_of(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("include_images", [False, True])
def test_no_name_and_no_path_leaves(workspace, include_images):
    folder = released(workspace, include_images=include_images)
    for name, data in contents_of(folder).items():
        for secret in (b"Jane", b"somebody", b"OSError", b"data/processed", b"data/raw"):
            assert secret not in data, name
    rows = read_json(folder / "caf_enhanced.json")
    assert [row["reason"] for row in rows] == [
        "the image could not be read", "the image could not be enhanced", None, None,
    ]  # fmt: skip
    label = read_json(folder / "ffhq_aging_relabelled.json")[0]
    assert label["reason"] == "1 experts answered; 2 are needed"
    experts = json.loads(label["experts"])
    assert experts["mivolo"] == EXPERTS["mivolo"]
    assert experts["vgg16"]["reason"] == "it did not read the image"
    assert experts["resnet50"]["reason"] == "it has no weight in the mixture"


def test_paths_are_those_of_the_pictures_in_the_release(workspace):
    folder = released(workspace)
    assert "enhanced_path" not in read_json(folder / "caf_enhanced.json")[0]
    folder = released(workspace, include_images=True)
    rows = read_json(folder / "caf_enhanced.json")
    paths = [row["enhanced_path"] for row in rows]
    assert paths[:2] == [None, None]
    for path in paths[2:]:
        assert path.startswith("images/one/")
        assert f"  {path}\n" in (folder / "checksums.sha256").read_text()
        assert (folder / path).is_file()


def test_persons_are_hashed_with_a_key_that_stays(workspace):
    folder = released(workspace)
    key = workspace.state / "release" / "identities.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    first = contents_of(folder)
    splits = pl.read_csv(folder / "identity_splits.csv")
    persons = set(splits.filter(pl.col("partition") == CAF)["identity"])
    assert len(persons) == 1
    # Whoever guesses the name cannot say that it is this person.
    assert persons != {hashlib.sha256(b"caf:Jane Doe").hexdigest()[:16]}
    shutil.rmtree(folder)
    assert contents_of(released(workspace)) == first
    key.unlink()
    others = set(pl.read_csv(released(workspace) / "identity_splits.csv")["identity"])
    assert not others & set(splits["identity"])
    key.write_bytes(b"short")
    with pytest.raises(DataError, match="found 5"):
        released(workspace)


@pytest.mark.parametrize("version", [".", "..", ".hidden", "-x", "a/b", "", "x" * 65])
def test_a_version_cannot_lead_out_of_the_folder_of_releases(version):
    with pytest.raises((ConfigError, ValueError), match="version"):
        config_of(release={"version": version})


@pytest.mark.parametrize("exchange", [swapping._exchange, lambda *_: False])
def test_a_release_that_fails_leaves_the_former_one(workspace, monkeypatch, exchange):
    monkeypatch.setattr(swapping, "_exchange", exchange)
    folder = released(workspace)
    (folder / "stray.txt").write_text("x")
    before = contents_of(folder)
    with monkeypatch.context() as patch:

        def dies(*_):
            raise KeyboardInterrupt

        patch.setattr(tables, "statistics_of", dies)
        with pytest.raises(KeyboardInterrupt):
            released(workspace)
    assert contents_of(folder) == before
    assert set(contents_of(released(workspace))) == set(before) - {"stray.txt"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_while_it_is_swapped_one_of_both_is_found(tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(swapping, "_exchange", lambda *_: False)
    folder = tmp_path / "1.0"
    folder.mkdir()
    (folder / "old").touch()
    done, rename = [], type(folder).rename

    def renames(path, target):
        if path.parent == tmp_path and not path.name.startswith(".tmp-"):
            done.append(path.name)
            if len(done) == killed_at:
                raise KeyboardInterrupt
        return rename(path, target)

    def replaces(name: str) -> None:
        with swapping.replaced_folder(folder) as new:
            (new / name).write_bytes(b"")

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", renames)
        with pytest.raises(KeyboardInterrupt):
            replaces("new")
    with pytest.raises(IsADirectoryError):
        replaces(".")  # fails: what was there before is there again
    assert [path.name for path in folder.iterdir()] == ["old"]
    replaces("newer")
    assert [path.name for path in folder.iterdir()] == ["newer"]
    assert list(tmp_path.iterdir()) == [folder]


def test_cards_say_what_is_so(workspace):
    folder = released(workspace)
    card = (folder / "DATASET_CARD.md").read_text()
    assert "license: cc-by-nc-sa-4.0\n" in card
    assert "Metadata only; no pictures." in card
    for name, value in (("3-6", "2.50 years"), ("gender=female", "4.50 years")):
        assert f"| `labels/mae_years/mixture/{name}` | {value}" in card
    assert "not computed (suppressed: n = 4 is below 30)" in card
    assert "not computed (see the report of the run)" in card
    described = read_json(folder / "croissant.json")
    biases = str(described["rai:dataBiases"])
    assert "Errors by age group and gender stand in the dataset card" in biases
    assert "no pictures" in described["description"]
    assert "No picture" in str(described["rai:personalSensitiveInformation"])

    own = {"include_images": True, "licence": "Ours: ask first"}
    folder = released(workspace, **own)
    for name in ("DATASET_CARD.md", "MODEL_CARD.md"):
        card = (folder / name).read_text()
        assert 'license: other\nlicense_name: "Ours: ask first"\n' in card
    described = read_json(folder / "croissant.json")
    for text in ((folder / "DATASET_CARD.md").read_text(), described["description"]):
        assert "With 2 enhanced pictures" in text
        assert "no pictures" not in text
    assert "Pictures of people" in str(described["rai:personalSensitiveInformation"])


def test_nothing_is_said_of_errors_that_were_not_measured(workspace):
    path = workspace.experiments / "tiny" / "metrics.json"
    unmeasured = {name: figure(None, "no truth") for name in METRICS}
    write_json(path, read_json(path) | {"metrics": unmeasured})
    folder = released(workspace)
    assert "stand in the dataset card" not in (folder / "croissant.json").read_text()
