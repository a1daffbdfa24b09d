"""A new image, or another network, touches only the files that it concerns."""

import polars as pl
import pytest
from enhanced_shard import KINDS, PARTITION, add_images, make_config, make_workspace, write_network

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.enhance.audit import audit_partition
from agetf_pipeline.enhance.outputs import enhanced_folder, is_output
from agetf_pipeline.stages import enhance

NUM_IMAGES = 2 * len(KINDS)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = make_workspace(tmp_path, NUM_IMAGES)
    enhance.run(make_config(), workspace, PARTITION)
    return workspace


def times_of(workspace: Workspace) -> dict[str, int]:
    files = enhanced_folder(workspace, PARTITION).iterdir()
    return {path.name: path.stat().st_mtime_ns for path in files if is_output(path.name)}


def rewritten(workspace: Workspace, before: dict[str, int]) -> set[str]:
    """Return the images whose files differ from before, each with picture and sidecar."""
    after = times_of(workspace)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    images = {name.partition(".")[0] for name in names}
    assert len(names) == 2 * len(images)
    return images


@pytest.mark.parametrize(
    ("network", "touched"), [("ddcolor", "colourised"), ("esrgan", "super_resolved")]
)
def test_another_network_touches_what_went_through_it(workspace, network, touched):
    before, rows = times_of(workspace), read_table(workspace, ENHANCED, [PARTITION])
    concerned = set(rows.filter(pl.col(touched))["image_id"])
    assert 0 < len(concerned) < NUM_IMAGES
    write_network(workspace, network, seed=1)
    report = enhance.run(make_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == len(concerned)
    assert rewritten(workspace, before) == concerned
    assert audit_partition(workspace, PARTITION) == []


def test_a_new_image_touches_itself_and_one_that_goes_takes_its_files(workspace):
    before, rows = times_of(workspace), read_table(workspace, ENHANCED, [PARTITION])
    add_images(workspace, NUM_IMAGES + 1)
    report = enhance.run(make_config(), workspace, PARTITION)
    new = set(read_table(workspace, ENHANCED, [PARTITION])["image_id"]) - set(rows["image_id"])
    assert (report.counts["num_computed"], report.counts["num_reused"]) == (1, NUM_IMAGES)
    assert rewritten(workspace, before) == new
    add_images(workspace, NUM_IMAGES)
    report = enhance.run(make_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == 0
    assert times_of(workspace) == before
    assert audit_partition(workspace, PARTITION) == []


def test_settings_that_change_no_pixel_touch_nothing(workspace):
    before = times_of(workspace)
    report = enhance.run(make_config(batch_size=1, chunk_size=3), workspace, PARTITION)
    assert report.counts["num_computed"] == 0
    assert times_of(workspace) == before
