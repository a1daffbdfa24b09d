"""Enhancement against the clean originals that only the truth of a synthetic corpus knows."""

import json

import polars as pl

from agetf_pipeline.core.progress import track
from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.evaluation.image_metrics import psnr, resize_bicubic, ssim
from agetf_pipeline.evaluation.panel import PairDistance

METRICS = ("psnr", "ssim")
_UNITS = {"psnr": "dB", "ssim": "", "lpips": ""}


def compare_enhanced(
    workspace: Workspace,
    enhanced: pl.DataFrame,
    truth: pl.DataFrame,
    lpips: PairDistance | None = None,
) -> pl.DataFrame:
    """Compare enhanced and bicubically resized images with their clean originals.

    Args:
        workspace: The workspace.
        enhanced: Table `enhanced`.
        truth: The truth table.
        lpips: Measures LPIPS; None where its weights are absent.

    Returns:
        One row per degraded image that was enhanced: image_id, identity, degradations (list), and
        `psnr_enhanced`, `psnr_bicubic`, `ssim_enhanced`, `ssim_bicubic`, `lpips_enhanced`,
        `lpips_bicubic` (null without `lpips`). All are compared at the size of the clean original.
    """
    degraded = (
        truth.filter(pl.col("degradations").list.len() > 0)
        .join(
            enhanced.filter(pl.col("status") == "ok").select("image_id", "enhanced_path"),
            on="image_id",
        )
        .drop_nulls("enhanced_path")
        .sort("image_id")
    )
    rows = []
    for row in track(degraded.to_dicts(), "comparing enhanced images with clean ones"):
        clean = read_rgb(workspace.resolve(row["clean_path"]))
        values = {}
        for name, path in (("enhanced", row["enhanced_path"]), ("bicubic", row["path"])):
            image = read_rgb(workspace.resolve(path))
            resized = resize_bicubic(image, clean.shape[1], clean.shape[0])
            values[f"psnr_{name}"] = float(psnr(resized[None], clean[None])[0])
            values[f"ssim_{name}"] = float(ssim(resized[None], clean[None])[0])
            values[f"lpips_{name}"] = (
                None if lpips is None else float(lpips.distances(resized[None], clean[None])[0])
            )
        rows.append({key: row[key] for key in ("image_id", "identity", "degradations")} | values)
    schema = {
        "image_id": pl.String, "identity": pl.String, "degradations": pl.List(pl.String),
        "psnr_enhanced": pl.Float64, "ssim_enhanced": pl.Float64,
        "psnr_bicubic": pl.Float64, "ssim_bicubic": pl.Float64,
        "lpips_enhanced": pl.Float64, "lpips_bicubic": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def measure_enhancement(
    compared: pl.DataFrame, sampling: Sampling, no_lpips: str | None = None
) -> dict[str, Measure]:
    """Measure enhancement overall and per kind of degradation (an image may have several).

    Args:
        compared: From `compare_enhanced`.
        sampling: How intervals are made.
        no_lpips: Why there is no LPIPS; None where it was measured.
    """
    measures = _of(compared, "", sampling)
    kinds = sorted(set(compared["degradations"].explode().drop_nulls()))
    for kind in kinds:
        rows = compared.filter(pl.col("degradations").list.contains(kind))
        measures |= _of(rows, f"/{kind}", sampling)
    if no_lpips is not None:
        for name in ("enhanced", "bicubic", "gain"):
            measures[f"enhancement/lpips/{name}"] = absent(no_lpips, synthetic=sampling.synthetic)
    return measures


def missing_enhancement(reason: str, sampling: Sampling) -> dict[str, Measure]:
    """Return the figures of enhancement as not computed, with the reason."""
    return {
        f"enhancement/{metric}/{name}": absent(reason, _UNITS[metric], 0, sampling.synthetic)
        for metric in METRICS
        for name in ("enhanced", "bicubic", "gain")
    }


def _of(rows: pl.DataFrame, suffix: str, sampling: Sampling) -> dict[str, Measure]:
    identities = rows["identity"].to_numpy()
    measures = {}
    for metric in (*METRICS, "lpips"):
        if rows[f"{metric}_enhanced"].null_count() == rows.height:
            continue
        columns = {name: rows[f"{metric}_{name}"].to_numpy() for name in ("enhanced", "bicubic")}
        # The gain of each image: its interval is what says whether enhancement helps.
        columns["gain"] = columns["enhanced"] - columns["bicubic"]
        for name, values in columns.items():
            measures[f"enhancement/{metric}/{name}{suffix}"] = measure_mean(
                values, identities, sampling, _UNITS[metric]
            )
    return measures


def per_image_rows(compared: pl.DataFrame) -> pl.DataFrame:
    """Return the compared rows in the report's per-image form."""
    values = [
        name
        for name in compared.columns
        if name.startswith((*METRICS, "lpips")) and compared[name].null_count() == 0
    ]
    details = [
        json.dumps(
            {name: round(row[name], 4) for name in values} | {"degradations": row["degradations"]},
            sort_keys=True,
        )
        for row in compared.iter_rows(named=True)
    ]
    return compared.select(
        pl.lit("enhancement").alias("kind"),
        "image_id",
        "identity",
        pl.lit(None, pl.Float64).alias("target_age_years"),
        pl.lit(None, pl.Float64).alias("age_years"),
        pl.Series("detail", details, dtype=pl.String),
    )
