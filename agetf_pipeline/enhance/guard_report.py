"""What a person sees of the guards: distributions with their thresholds, and what was flagged."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl

from agetf_pipeline.config.enhance import RecheckConfig
from agetf_pipeline.core.contact_sheet import Tile, draw_sheet
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_bytes, write_text
from agetf_pipeline.core.plotting import BLUE, GREY, RED, figure, save_figure
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.enhance.guards import GUARDS

_SHEET_PAIRS = 24
_SHEET_COLUMNS = 3
_BINS = 30
_CSV_COLUMNS = (
    "image_id", "severity", "flags", "excluded", "reason", "age_before_years", "age_after_years",
    "age_shift_years", "identity_similarity", "sharpness_ratio", "colourfulness_change",
    "not_compared", "decision", "face_path", "enhanced_path",
)  # fmt: skip


def rank_flagged(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the flagged rows, the most severe first."""
    return rows.filter("flagged").sort("severity", "image_id", descending=[True, False])


def write_flagged_csv(path: Path, ranked: pl.DataFrame) -> None:
    """Write flagged images as CSV, ranked; only the header where none was flagged.

    Args:
        path: File to write.
        ranked: Rows of `rank_flagged`.
    """
    floats = pl.selectors.float().cast(pl.Float64).round(4)
    flat = ranked.select(_CSV_COLUMNS).with_columns(pl.col("flags").list.join("|"), floats)
    write_text(path, flat.write_csv())


def write_flagged_sheet(workspace: Workspace, path: Path, title: str, ranked: pl.DataFrame) -> None:
    """Write a sheet of flagged originals beside their enhanced copies, the most severe first.

    Args:
        workspace: The workspace.
        path: JPEG to write.
        title: Above the sheet.
        ranked: Rows of `rank_flagged`, at least one.
    """
    shown = ranked.head(_SHEET_PAIRS)
    tiles = [
        Tile(
            [_picture(workspace, row[name]) for name in ("face_path", "enhanced_path")],
            (
                " + ".join(row["flags"]) + ("" if row["excluded"] else " (told only)"),
                _values(row, 0, 2),
                _values(row, 2, 4),
                row["image_id"][:12],
            ),
        )
        for row in shown.iter_rows(named=True)
    ]
    subtitle = f"{shown.height} of {ranked.height} flagged, the most severe first"
    sheet = draw_sheet(title, tiles, _SHEET_COLUMNS, subtitle)
    bgr = np.ascontiguousarray(sheet[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    write_bytes(path, data.tobytes())


def plot_guards(path: Path, rows: pl.DataFrame, limits: RecheckConfig, subtitle: str) -> None:
    """Draw what each guard measured, its threshold, and how many it flagged.

    Args:
        path: PNG to write.
        rows: Rows of table `enhanced_ages` of images that enhancement touched.
        limits: The thresholds.
        subtitle: What the images are.
    """
    fig = figure(11, 6)
    fig.suptitle(f"Guards after enhancement, {subtitle}", x=0.01, ha="left", fontsize=12)
    age, identity, sharp, gained, kept, counts = fig.subplots(2, 3).ravel()
    coloured = pl.col("colourised").fill_null(False)
    age_limit, colour_limit = limits.max_age_shift_years, limits.max_colourfulness_change
    _panel(age, rows, "age_shift_years", (-age_limit, age_limit), "age: shift (years)")
    _panel(identity, rows, "identity_similarity", (limits.min_identity_similarity,),
           "identity: cosine to the original")  # fmt: skip
    _panel(sharp, rows, "sharpness_ratio", (limits.min_sharpness_ratio,),
           "sharpness: ratio at one size")  # fmt: skip
    _panel(gained, rows.filter(coloured), "colourfulness_change",
           (limits.min_colourfulness_gain,), "colour: gain of colourised (M3)")  # fmt: skip
    _panel(kept, rows.filter(~coloured), "colourfulness_change",
           (-colour_limit, colour_limit), "colour: change of others (M3)")  # fmt: skip
    flagged = [int(rows["flags"].list.contains(guard).sum()) for guard in GUARDS]
    excluding = limits.excluding()
    colours = [RED if guard in excluding else GREY for guard in GUARDS]
    bars = counts.barh(GUARDS[::-1], flagged[::-1], color=colours[::-1])
    counts.bar_label(bars, padding=3, fontsize=8)
    counts.set(xlabel="images flagged (red: excluded, grey: told only)")
    counts.set_xlim(0, max(1, *flagged) * 1.15)
    counts.set_title(f"Flagged of {rows.height}")
    save_figure(path, fig)


def mean_figures(touched: pl.DataFrame) -> dict[str, float | None]:
    """Means over the images that enhancement touched, null where nothing was compared."""
    coloured = pl.col("colourised").fill_null(False)
    change = "colourfulness_change"
    means = {
        "mean_age_shift_years": touched["age_shift_years"].mean(),
        "mean_abs_age_shift_years": touched["age_shift_years"].abs().mean(),
        "mean_identity_similarity": touched["identity_similarity"].mean(),
        "median_sharpness_ratio": touched["sharpness_ratio"].median(),
        "mean_colourfulness_gain_of_colourised": touched.filter(coloured)[change].mean(),
        "mean_abs_colourfulness_change_of_others": touched.filter(~coloured)[change].abs().mean(),
    }
    return {
        name: round(value, 4) if isinstance(value, float) else None for name, value in means.items()
    }


def _panel(axes, rows: pl.DataFrame, column: str, limits: tuple[float, ...], title: str) -> None:
    values = rows[column].drop_nulls().to_numpy()
    axes.set_title(f"{title}, n={len(values)}")
    if not len(values):
        axes.text(0.5, 0.5, "not compared", ha="center", va="center", transform=axes.transAxes,
                  color=GREY)  # fmt: skip
        axes.set(xticks=[], yticks=[])
        return
    # The thresholds are always in view: how far they are from the bulk is what the plot is for.
    low, high = min(*values, *limits), max(*values, *limits)
    margin = 0.05 * (high - low) or 0.5
    axes.hist(values, bins=np.linspace(low - margin, high + margin, _BINS + 1), color=BLUE)
    for limit in limits:
        axes.axvline(limit, color=RED, lw=1.2, ls="--")
    axes.set(ylabel="images")


def _values(row: dict, first: int, end: int) -> str:
    """Spell some of the four values; a line under a picture has room for two."""
    parts = (
        ("age", "age_shift_years", "{:+.1f} years"),
        ("identity", "identity_similarity", "{:.2f}"),
        ("sharpness", "sharpness_ratio", "x{:.2f}"),
        ("colour", "colourfulness_change", "{:+.1f}"),
    )
    known = [
        f"{name} {spelled.format(row[column])}"
        for name, column, spelled in parts[first:end]
        if row[column] is not None
    ]
    return "  ".join(known)


def _picture(workspace: Workspace, path: str) -> np.ndarray | None:
    try:
        return read_rgb(workspace.resolve(path))
    except DataError:
        return None
