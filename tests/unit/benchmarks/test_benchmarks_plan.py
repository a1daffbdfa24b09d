"""The plan for many images: figures come from rows, and what was not measured stays so."""

import pytest

from benchmarks import plan
from benchmarks.rows import Row

VALUES = {name: each.value for name, each in plan.ASSUMPTIONS.items()}
ROWS = [
    Row("relabel: resnet50", "faces", ours_s=(0.1, 0.2)),
    Row("relabel: vgg16", "faces", ours_s=(0.2, 0.3)),
    Row("relabel: the four experts", "faces", ours_s=(0.4, 0.75)),
    Row("relabel: the four experts, JPEG of 256-512 px", "faces", ours_s=(9.0, 9.0)),
    Row("enhance: DDColor tiny, 256 px", "images", ours_s=(0.4, 0.6)),
    Row("relabel: resnet50, GPU", "faces", ours_s=(0.002, 0.01)),
]


def part(stage: str) -> plan.Part:
    return next(each for each in plan.PARTS if each.stage == stage)


def test_what_an_image_costs_is_the_rows_processor_time_and_share():
    three, janus = part("predict: three networks"), part("predict: Janus")
    assert plan.cost_of(three, ROWS, VALUES) == pytest.approx(0.5)
    # A 24th of its layers is measured, beside the others.
    assert plan.cost_of(janus, ROWS, VALUES) == pytest.approx(24 * 0.25)
    assert plan.cost_of(janus, ROWS[2:], VALUES) is None
    assert plan.cost_of(part("enhance: colour"), ROWS, VALUES) == pytest.approx(0.6 * 0.3)
    touched = 1 - 0.7 * 0.5
    assert plan.cost_of(part("recheck: Janus"), ROWS, VALUES) == pytest.approx(6.0 * touched)
    assert plan.cost_of(part("caption"), ROWS, VALUES) is None
    assert plan.cost_of(three, ROWS, VALUES, gpu=True) == 0.002
    assert plan.cost_of(part("enhance: colour"), ROWS, VALUES, gpu=True) is None


def test_time_and_price_follow_from_it():
    machines = VALUES | {"num_machines": 2, "cores_per_machine": 5, "efficiency": 1.0}
    text = plan.plan(ROWS, machines | {"core_hour": 1.0}, {"images": 100.0}, {"core_hour"})
    line = next(line for line in text[0].splitlines() if line.startswith("| predict"))
    # 10 million x 0.5 s over 10 cores; and 1,389 core hours at 1.
    assert "| 0.5 | 5.8 days | 58 days | 1,389 | 13,889 |" in line
    caption = next(line for line in text[0].splitlines() if line.startswith("| caption"))
    assert caption.count("not measured") == 2
    assert "**the 5 measured**" in text[0]
    assert "| table `images` | 100 | 1 | 10 |" in text[1]
    assert "| core_hour | 1 | given |" in text[3]


def test_without_rows_nothing_is_invented():
    text = plan.plan([], VALUES, {})[0]
    assert text.count("not measured") == 2 * len(plan.PARTS) + 1


def test_bytes_of_a_row_are_measured(tmp_path):
    sizes = plan.measure_tables(tmp_path, width=16, num_images=64)
    assert set(sizes) >= {"images", "predictions", "labels", "captions", "training_manifest"}
    assert sizes["predictions"] > 4 * 101 * 3  # four experts' distributions hardly shrink
