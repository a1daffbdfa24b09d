"""What a report says of a shard does not depend on the slices that it was gathered from."""

import numpy as np
import polars as pl
import pytest

from agetf_pipeline.data.schemas import ENHANCED
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.enhance.outputs import _choose
from agetf_pipeline.enhance.tally import Tally

NUM_ROWS = 400


def make_rows() -> pl.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for number in range(NUM_ROWS):
        row: dict = dict.fromkeys(ENHANCED.schema.names)
        row |= {"image_id": f"{number:064x}", "settings_version": "1"}
        if number % 50 == 7:
            row |= {"status": "failed", "reason": f"reason {number}"}
        else:
            names = ("colourfulness", "sharpness")
            measured = [f"{name}_{when}" for name in names for when in ("before", "after")]
            row |= {"status": "ok", "colourised": number % 2 == 0, "decision": "because"}
            row |= {"super_resolved": number % 3 == 0}
            row |= {name: float(rng.uniform(0, 50)) for name in measured}
        rows.append(row)
    return to_frame(rows, ENHANCED)


@pytest.mark.parametrize("size", [1, 37, NUM_ROWS])
def test_slices_add_up(size):
    rows, tally = make_rows(), Tally()
    for some in rows.iter_slices(size):
        tally.add(some)
    good = rows.filter(pl.col("status") == "ok")
    changed = good.filter(pl.col("colourised") | pl.col("super_resolved"))
    assert tally.counts == {
        "num_images": NUM_ROWS,
        "num_colourised": good.filter("colourised").height,
        "num_super_resolved": good.filter("super_resolved").height,
        "num_passed_through": good.height - changed.height,
        "num_failed": 8,
    }
    assert tally.image_ids == set(good["image_id"])
    mean = changed["sharpness_after"].cast(pl.Float64).mean()
    assert tally.means["mean_sharpness_after_of_changed"] == pytest.approx(mean, abs=1e-4)
    assert [message.rpartition(": ")[2] for message in tally.explain_failures()] == [
        "reason 7", "reason 57", "reason 107", "5 more failed; see the table 'enhanced'",
    ]  # fmt: skip
    # The contact sheet shows what it would show of the whole table.
    assert tally.shown.height <= 4 * 24
    assert _choose(tally.shown) == _choose(good)


def test_of_nothing_there_is_no_mean():
    tally = Tally()
    tally.add(make_rows().filter(pl.col("status") == "failed"))
    assert set(tally.means.values()) == {None}
    assert tally.num_good == 0
