"""The files of an enhanced shard: what their names are, and what the contact sheet's title says."""

import numpy as np
import pytest
from enhanced_shard import PARTITION
from PIL import Image

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.enhance.outputs import (
    CONTACT_SHEET,
    is_output,
    remove_orphans,
    sheet_title,
    write_output,
)

ID = "a" * 64


def test_a_picture_whose_sidecar_is_refused_leaves_no_sidecar(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with pytest.raises(DataError, match="original: Field required"):
        write_output(tmp_path, ID, rgb, {})
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"{ID}.png")), rgb)


def test_only_outputs_of_other_images_are_removed(tmp_path):
    other = "b" * 64
    kept = [f"{ID}.png", f"{ID}.json", CONTACT_SHEET, "notes.txt", f"{'x' * 64}.png"]
    for name in (*kept, f"{other}.png", f"{other}.json"):
        (tmp_path / name).write_bytes(b"x")
    assert remove_orphans(tmp_path, {ID}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert not is_output(f"{ID}.png.bak")


@pytest.mark.parametrize(
    ("ddcolor", "esrgan", "said"),
    [
        ("published", "published", ""),
        ("workspace corpus", "workspace corpus", ""),
        ("synthetic", "synthetic", " (networks: trained on synthetic faces)"),
        ("synthetic", "published", " (ddcolor: trained on synthetic faces)"),
        (
            "random weights of seed 0",
            "random weights of seed 1",
            " (networks: random weights, no result)",
        ),
        (
            "not stated (weights named in the config)",
            "Random weights",
            " (ddcolor: training not stated; esrgan: random weights, no result)",
        ),
    ],
)
def test_the_title_says_what_the_networks_are(ddcolor, esrgan, said):
    title = sheet_title(PARTITION, {"ddcolor": ddcolor, "esrgan": esrgan})
    assert title == f"caf/one: original and enhanced{said}"
