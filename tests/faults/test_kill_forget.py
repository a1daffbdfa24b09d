"""Forgetting killed at any moment: it stays recorded, ingest keeps out, running again finishes."""

import json
import shutil
from pathlib import Path

import pytest
from forget_victim import COUNT, finish, forget_ann
from forgotten_workspace import ANN, contents, make_config, make_workspace, read_all, traces
from forked import KILLED, in_child, preload

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.forgotten import read_forgotten, unfinished
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import read_table

REGISTER = "data/forgotten.json"

preload("forget_victim")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("made") / "w").root


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> tuple[dict[str, str], int]:
    """What is left by a run that nobody kills, and how many steps it takes."""
    root = tmp_path_factory.mktemp("undisturbed") / "w"
    shutil.copytree(made, root)
    assert in_child(forget_ann, root) == 0
    return results(root), int(root.with_name(COUNT).read_text())


def results(root: Path) -> dict[str, str]:
    """Return all files but the register, whose key and times are its own."""
    return {name: digest for name, digest in contents(root).items() if name != REGISTER}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.12, 0.3, 0.47, 0.62, 0.78, 0.86, 0.93, 0.97, 1.0])
def test_a_kill_anywhere_is_finished_by_the_next_call(made, undisturbed, tmp_path, share):
    expected, num_steps = undisturbed
    assert num_steps > 40
    root = tmp_path / "w"
    shutil.copytree(made, root)
    ids = sorted(
        row["image_id"]
        for row in read_table(Workspace(root), IMAGES).iter_rows(named=True)
        if row["subject"] == ANN
    )
    number = 1 + round(share * (num_steps - 1))
    assert in_child(forget_ann, root, number) == KILLED
    if share == 0.0:  # before the register has its name: nothing has happened
        assert not (root / REGISTER).exists()
        assert in_child(forget_ann, root) == 0
    else:
        assert read_forgotten(Workspace(root)).image_ids == set(ids)
        assert in_child(finish, root) == 0
    assert results(root) == expected
    assert not unfinished(read_forgotten(Workspace(root)))
    assert list(root.rglob(".tmp-*")) == []
    left = traces(root, [ANN, *ids])
    expected_places = (REGISTER, "data/raw/", "data/tables/quarantine", "stats/quarantine",
                       "models/age_transformer/run/weights.trained_on")  # fmt: skip
    assert [name for name in left if not name.startswith(expected_places)] == []


def test_between_the_kill_and_the_next_call_nothing_comes_back(made, tmp_path):
    """Stages may run meanwhile: the register is written before anything goes."""
    root = tmp_path / "w"
    shutil.copytree(made, root)
    assert in_child(forget_ann, root, 4) == KILLED
    workspace = Workspace(root)
    assert len(unfinished(read_forgotten(workspace))) == 1
    read_all(workspace, make_config(root))
    assert ANN not in read_table(workspace, IMAGES)["subject"]
    assert in_child(finish, root) == 0
    ids = json.loads((root / REGISTER).read_text())["entries"][0]["image_ids"]
    left = traces(root / "data" / "processed", [ANN, *ids])
    left |= traces(root / "stats" / "captions", [ANN, *ids])
    assert left == {}
    assert not (root / "outputs/experiments/run/grid.png").exists()
    assert not (root / "data/raw/caf/first/ann-1.png").exists()
