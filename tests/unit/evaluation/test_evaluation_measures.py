import numpy as np
import polars as pl
import pytest

from agetf_pipeline.config.evaluate import EvaluateConfig
from agetf_pipeline.core.statistics import Measure, Sampling, absent
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_midpoint, group_of
from agetf_pipeline.evaluation import enhancement, labels, renderings
from agetf_pipeline.evaluation.must_hold import describe, judge

SAMPLING = Sampling(num_bootstrap=50, min_cell=10, synthetic=True)


def corpus(num_images: int = 200):
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 100, num_images)
    ids = [f"{i:03d}" for i in range(num_images)]
    truth = pl.DataFrame({"image_id": ids, "identity": ids, "true_age_years": true})
    genders = [("female", "male", None)[i % 3] for i in range(num_images)]
    images = pl.DataFrame(
        {"image_id": ids, "age_group": [group_of(age) for age in true], "gender": genders}
    )
    table = pl.DataFrame(
        {
            "image_id": ids,
            "age_years": (true + 1.0).astype(np.float32),
            "interval_low_years": (true - 4).astype(np.float32),
            "interval_high_years": np.where(np.arange(num_images) % 4 == 0, true - 2, true + 6),
        }
    )
    predictions = pl.concat(
        pl.DataFrame(
            {
                "image_id": ids,
                "expert": name,
                "status": "ok",
                "age_years": (true + error).astype(np.float32),
            }
        )
        for name, error in (("mivolo", 2.0), ("vgg16", -4.0), ("janus", 3.0))
    )
    return images, table, predictions, truth


def test_labels_against_known_errors():
    images, table, predictions, truth = corpus()
    found = labels.measure_labels(labels.join_labels(images, table, predictions, truth), SAMPLING)
    expected = {"mixture": 1.0, "expert_mivolo": 2.0, "expert_vgg16": 4.0, "expert_janus": 3.0,
                "equal_mean": 1 / 3, "equal_median": 2.0}  # fmt: skip
    for name, value in expected.items():
        assert found[f"labels/mae_years/{name}"].value == pytest.approx(value, abs=1e-4)
        assert found[f"labels/mae_years/{name}"].synthetic
    true = truth["true_age_years"].to_numpy()
    midpoints = np.array([group_midpoint(group_of(age)) for age in true])
    assert found["labels/mae_years/group_midpoints"].value == pytest.approx(
        np.abs(midpoints - true).mean()
    )
    assert found["labels/interval_coverage"].value == pytest.approx(0.75)
    assert labels.best_expert(found) == "expert_mivolo"
    assert found["labels/mae_ratio_to_best_expert"].value == pytest.approx(0.5, abs=1e-4)
    assert f"labels/mae_years/mixture/{AGE_GROUPS[-1]}" in found
    assert found["labels/mae_years/mixture/gender=female"].n == 67
    assert not any(name.endswith("gender=") for name in found)
    # All ages moved by a year: the distribution as a whole moves by a year.
    assert found["labels/age_emd_years/mixture"].value == pytest.approx(1.0, abs=1e-4)


def test_methods_are_compared_on_the_same_images():
    images, table, predictions, truth = corpus()
    failed = predictions.with_columns(
        pl.when((pl.col("image_id") == "000") & (pl.col("expert") == "vgg16"))
        .then(pl.lit("failed")).otherwise("status").alias("status")
    )  # fmt: skip
    unlabelled = table.with_columns(
        pl.when(pl.col("image_id") == "001").then(None).otherwise("age_years").alias("age_years")
    )
    joined = labels.join_labels(images, unlabelled, failed, truth)
    assert joined.height == 198
    assert labels.per_image_rows(joined).height == 198


def test_enhancement_compares_at_the_size_of_the_clean_image(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(1)
    workspace = Workspace(tmp_path)
    clean = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    clean_image = Image.fromarray(clean).resize((32, 32), Image.Resampling.BICUBIC)
    clean_image.save(tmp_path / "clean.png")
    clean_image.resize((16, 16)).save(tmp_path / "degraded.png")
    clean_image.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "enhanced.png")
    truth = pl.DataFrame(
        {"image_id": ["a", "b"], "identity": ["p", "q"], "path": "degraded.png",
         "degradations": [["low_res", "grey"], []], "clean_path": "clean.png"}
    )  # fmt: skip
    table = pl.DataFrame({"image_id": ["a", "b"], "status": "ok", "enhanced_path": "enhanced.png"})
    compared = enhancement.compare_enhanced(workspace, table, truth)
    assert compared["image_id"].to_list() == ["a"]
    row = compared.row(0, named=True)
    assert row["psnr_enhanced"] > row["psnr_bicubic"] + 3
    found = enhancement.measure_enhancement(compared, Sampling(10, min_cell=1))
    gain = row["psnr_enhanced"] - row["psnr_bicubic"]
    for kind in ("", "/low_res", "/grey"):
        assert found[f"enhancement/psnr/gain{kind}"].value == pytest.approx(gain)
    assert not any("lpips" in name for name in found)
    why = enhancement.measure_enhancement(compared, Sampling(10, min_cell=1), "no AlexNet")
    assert why["enhancement/lpips/gain"].reason == "no AlexNet"


class MeanDifference:
    """Stands for LPIPS: the mean absolute difference of two pictures."""

    def distances(self, images_NHWC, references_NHWC):
        return np.abs(images_NHWC.astype(float) - references_NHWC).mean(axis=(1, 2, 3))


def test_lpips_of_enhancement_is_measured_where_it_can_be(tmp_path):
    from PIL import Image

    clean, enhanced, degraded = (np.full((16, 16, 3), grey, np.uint8) for grey in (100, 104, 110))
    for name, picture in (("clean", clean), ("enhanced", enhanced), ("degraded", degraded)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    truth = pl.DataFrame(
        {"image_id": ["a"], "identity": ["p"], "path": "degraded.png",
         "degradations": [["low_res"]], "clean_path": "clean.png"}
    )  # fmt: skip
    table = pl.DataFrame({"image_id": ["a"], "status": "ok", "enhanced_path": "enhanced.png"})
    compared = enhancement.compare_enhanced(Workspace(tmp_path), table, truth, MeanDifference())
    found = enhancement.measure_enhancement(compared, Sampling(10, min_cell=1))
    assert found["enhancement/lpips/enhanced"].value == pytest.approx(4)
    assert found["enhancement/lpips/gain/low_res"].value == pytest.approx(-6)
    assert '"lpips_enhanced": 4.0' in enhancement.per_image_rows(compared)["detail"][0]


def test_ages_of_perfect_and_of_constant_renderings():
    anchors = np.arange(5.0, 100, 10)
    people = np.arange(40)
    perfect = renderings.measure_ages(np.tile(anchors, (40, 1)), anchors, people, SAMPLING)
    assert perfect["renderings/age_mae_years/45"].value == 0
    assert perfect["renderings/age_slope"].value == pytest.approx(1)
    assert perfect["renderings/age_spearman"].value == pytest.approx(1)
    assert perfect["renderings/age_sd_years/25"].value == 0
    constant = renderings.measure_ages(np.full((40, 10), 50.0), anchors, people, SAMPLING)
    assert constant["renderings/age_slope"].value == 0
    assert constant["renderings/age_spearman"].value is None
    assert constant["renderings/age_spearman_per_face"].value == 0
    assert constant["renderings/age_bias_years/95"].value == pytest.approx(-45)


def test_ages_that_were_not_read_are_said():
    read = np.tile([5.0, 50.0], (20, 1))
    read[3, 1] = np.nan
    found = renderings.measure_ages(read, (5, 50), np.arange(20), SAMPLING, "mixture_")
    assert found["renderings/mixture_age_mae_years/50"].n == 19
    assert "1 of 20" in found["renderings/mixture_age_mae_years/50"].note
    assert found["renderings/mixture_age_mae_years/5"].n == 20
    assert found["renderings/mixture_age_slope"].n == 19
    assert "1 of 20" in found["renderings/mixture_age_slope"].note


def test_ages_read_are_compared_with_those_of_real_people_of_that_age():
    rng = np.random.default_rng(3)
    real_ages = rng.uniform(0, 100, 400)
    read = np.stack([np.full(30, 12.0), np.full(30, 50.0)], axis=1)
    # Whoever is near five is read as twelve, by a reader who does so with everybody.
    real_read = np.where(real_ages < 10, 12.0, real_ages)
    found = renderings.measure_age_distributions(
        read, (5, 50), real_read, real_ages, np.arange(30), SAMPLING
    )
    assert found["renderings/age_emd_years/5"].value == pytest.approx(0.0, abs=1e-9)
    assert found["renderings/age_emd_years/5"].low is None
    assert "two halves" in found["renderings/age_emd_years/5"].note
    assert 1.0 < found["renderings/age_emd_years/50"].value < 4.0
    few = renderings.measure_age_distributions(
        read, (5, 50), real_read[:5], real_ages[:5], np.arange(30), SAMPLING
    )
    assert few["renderings/age_emd_years/5"].value is None


def test_statements_hold_fail_and_stay_open():
    measures = {
        "labels/mae_years/mixture": Measure(3.0, 2.9, 3.1, 100, 100, "years", True),
        "labels/mae_years/group_midpoints": Measure(4.0, n=100),
        "labels/mae_gain_years": Measure(1.0, 0.4, 1.6, 100),
        "labels/mae_years/expert_vgg16": Measure(2.9, n=100),
        "labels/mae_ratio_to_best_expert": Measure(1.0, 0.97, 1.03, 100),
        "renderings/age_spearman": absent("no estimator"),
    }
    found = {item.name: item for item in judge(measures, EvaluateConfig())}
    assert found["mixture_below_group_midpoints"].holds is True
    assert "3.00 years [2.90, 3.10]" in found["mixture_below_group_midpoints"].detail
    # A ratio of one that may as well be 1.03 does not show that it is at most 1.02.
    assert found["mixture_near_best_expert"].holds is False
    assert "vgg16" in found["mixture_near_best_expert"].text
    assert found["rendered_age_rises"].holds is None
    assert found["rendered_age_rises"].verdict == "not judged"
    assert "no estimator" in found["rendered_age_rises"].detail
    assert describe(measures["labels/mae_years/mixture"]) == (
        "3.00 years [2.90, 3.10] (n = 100, synthetic)"
    )


@pytest.mark.parametrize(
    ("gain", "holds"),
    [((0.01, 0.001, 0.02), True), ((0.01, -0.001, 0.02), False), ((0.01, None, None), None)],
)
def test_colour_has_to_beat_the_grey_copy_by_both_measures(gain, holds):
    measures = {
        "enhancement/psnr/gain/grey": Measure(4.0, 3.5, 4.5),
        "enhancement/ssim/gain/grey": Measure(*gain),
    }
    found = {item.name: item for item in judge(measures, EvaluateConfig())}
    assert found["colour_beats_grey_copy"].holds is holds
    assert "labels/mae_years/expert: not measured" in found["mixture_near_best_expert"].detail
