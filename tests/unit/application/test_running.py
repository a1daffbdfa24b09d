"""What Dagster is told of a stage's report."""

import base64
import io
import re

import numpy as np
from PIL import Image

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages.base import StageReport
from assets.showing import report_metadata


def _report(tmp_path, **outputs) -> dict:
    figures = {"mixture_mae_years": 5.5, "absent": None}
    report = StageReport("relabel", counts={"images": 3}, figures=figures, outputs=outputs)
    return report_metadata(report, Workspace(tmp_path))


def _picture(metadata_value) -> Image.Image:
    data = re.search(r"base64,([A-Za-z0-9+/=]+)\)", metadata_value.md_str)
    assert data is not None
    return Image.open(io.BytesIO(base64.b64decode(data[1])))


def test_counts_and_figures_that_are_known(tmp_path):
    metadata = _report(tmp_path)
    assert metadata["num_images"] == 3
    assert metadata["mixture_mae_years"] == 5.5
    assert "absent" not in metadata


def test_tables_show_their_first_rows(tmp_path):
    lines = ["group,num", *(f"g{n},{n}" for n in range(250))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = _report(tmp_path, groups="t.csv")["table_groups"]
    assert [column.name for column in table.schema.columns] == ["group", "num"]
    assert len(table.records) == 100
    assert table.records[99].data == {"group": "g99", "num": "99"}


def test_pictures_too_large_for_an_event_are_shown_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1800, 1500, 3), dtype=np.uint8)
    Image.fromarray(np.full_like(noise, 200)).save(tmp_path / "small.png")
    smooth = Image.fromarray(noise[::60, ::60]).resize((1500, 1800))
    smooth.save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 400_000
    metadata = _report(tmp_path, small="small.png", large="large.png")
    assert _picture(metadata["picture_small"]).size == (1500, 1800)
    assert max(_picture(metadata["picture_large"]).size) == 1400
