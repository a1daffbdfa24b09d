"""What a run leaves to look at, read back from TensorBoard's files, the CSV and the picture."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agetf_pipeline.training import records
from agetf_pipeline.training.records import BOARD_FOLDER, Board

ROW = {"loss": 1.5, "age": 0.5, "grad_norm": 2.0, "lr": 1e-4, "images_per_s": 80.0,
       "val_paired_l1": 0.1}  # fmt: skip
TAGS = {"losses/loss", "losses/age", "run/grad_norm", "run/lr", "run/images_per_s",
        "validation/val_paired_l1"}  # fmt: skip


def read(folder):
    events = EventAccumulator(str(folder / BOARD_FOLDER))
    events.Reload()
    return events


def test_tensorboard_has_scalars_the_grid_and_the_config(tmp_path):
    board = Board(tmp_path, 0)
    board.describe({"train": {"lr": 1e-4, "model": "tiny-64"}})
    for num_images in (20, 40):
        board.log({"num_images": float(num_images), **ROW}, num_images)
        board.show("faces", np.full((12, 30, 3), num_images, np.uint8), num_images)
    board.close()
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == TAGS
    assert [(e.step, e.value) for e in events.Scalars("losses/loss")] == [(20, 1.5), (40, 1.5)]
    pictures = events.Images("faces")
    assert [(p.step, p.width, p.height) for p in pictures] == [(20, 30, 12), (40, 30, 12)]
    (text,) = events.Tensors("config/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert lines == ["    train:", "      lr: 0.0001", "      model: tiny-64"]


def test_resuming_drops_what_lies_after_the_checkpoint_and_keeps_the_checkpoints_own(tmp_path):
    first = Board(tmp_path, 0)
    first.describe({"seed": 0})
    for num_images in (20, 40, 60, 80):
        first.log({"loss": float(num_images)}, num_images)
        first.show("faces", np.zeros((4, 4, 3), np.uint8), num_images)
    first.close()
    second = Board(tmp_path, 40)  # killed; the last checkpoint was that of image 40
    for num_images in (60, 80, 100):
        second.log({"loss": -float(num_images)}, num_images)
    second.close()
    events = read(tmp_path)
    found = [(e.step, e.value) for e in events.Scalars("losses/loss")]
    assert found == [(20, 20), (40, 40), (60, -60), (80, -80), (100, -100)]
    assert [p.step for p in events.Images("faces")] == [20, 40]
    assert len(events.Tensors("config/text_summary")) == 1


def test_a_fresh_run_takes_the_place_of_an_earlier_one(tmp_path):
    for loss in (1.0, 2.0):
        board = Board(tmp_path, 0)
        board.log({"loss": loss}, 20)
        board.close()
    assert [(e.step, e.value) for e in read(tmp_path).Scalars("losses/loss")] == [(20, 2.0)]


def history(count: int = 40) -> list[dict[str, float]]:
    rows = []
    for index in range(1, count + 1):
        row = {"num_images": 500.0 * index, "loss": 3.0 / index, "lr": 1e-4, "unheard_of": -1.0}
        if index % 10 == 0:
            row["val_paired_l1"] = 0.3 - 0.001 * index
        rows.append(row)
    return rows


def test_metrics_have_a_row_each_and_gaps_where_nothing_was_measured(tmp_path):
    lines = records.write_metrics(tmp_path, history(10)).read_text().splitlines()
    assert lines[0] == "num_images,loss,lr,unheard_of,val_paired_l1"
    assert lines[1] == "500,3,0.0001,-1,"
    assert lines[10].endswith(",0.29")
    assert len(lines) == 11


@pytest.mark.parametrize("rows", [history(), history(1), []])
def test_curves_are_drawn_the_same_each_time(tmp_path, rows):
    first = records.write_curves(tmp_path, rows, "run").read_bytes()
    assert first == records.write_curves(tmp_path, rows, "run").read_bytes()
    assert first.startswith(b"\x89PNG")


def test_curves_say_what_they_show_in_which_unit(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(records.plotting, "save_figure", lambda path, figure: drawn.append(figure))
    records.write_curves(tmp_path, history(), "run")
    panels = drawn[0].axes
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["Total loss", "Learning rate", "Validation: same subject", "unheard_of"]
    assert [axes.get_yscale() for axes in panels] == ["log", "linear", "linear", "linear"]
    assert panels[2].get_ylabel() == "L1, images span 2"
    assert {axes.get_xlabel() for axes in panels} == {"images seen, thousands"}
    raw, smoothed = panels[0].get_lines()
    np.testing.assert_allclose(raw.get_ydata(), [row["loss"] for row in history()])
    assert (np.diff(smoothed.get_ydata()) < 0).all()


def test_smoothing_keeps_the_level_and_quiets_the_noise():
    noise = 5 + np.random.default_rng(0).normal(0, 1, 500)
    smoothed = records._smoothed(noise)
    assert smoothed.mean() == pytest.approx(noise.mean(), abs=0.1)
    assert smoothed.std() < 0.3
    np.testing.assert_allclose(records._smoothed(np.full(7, 2.0)), 2.0)
    assert records._smoothed(np.array([4.0]))[0] == 4
