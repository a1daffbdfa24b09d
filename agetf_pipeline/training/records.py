"""What a run leaves to look at: the resolved config, metrics, curves, TensorBoard, sample grids."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agetf_pipeline.core import plotting
from agetf_pipeline.core.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOGGER = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
METRICS_FILE = "train_metrics.csv"
CURVES_FILE = "loss_curves.png"
SAMPLES_FILE = "train_samples.png"
BOARD_FOLDER = "tensorboard"

_TITLES: dict[str, tuple[str, str]] = {
    "loss": ("Total loss", "weighted sum"),
    "reconstruction": ("Reconstruction at the source's age", "L1, images span 2"),
    "lpips": ("LPIPS at the source's age", "LPIPS"),
    "paired": ("Same subject at another age", "L1, edges, structure"),
    "preservation": ("Outside the head", "L1, images span 2"),
    "cycle": ("Back to the source's age", "L1, images span 2"),
    "age": ("Age", "tens of years"),
    "order": ("Age order", "softplus"),
    "identity": ("Identity", "cosine below the margin"),
    "smoothness": ("Smoothness of mask and flow", "total variation"),
    "adversarial": ("Adversarial, generator", "softplus"),
    "discriminator": ("Adversarial, discriminator", "softplus"),
    "r1": ("R1", "squared gradient norm"),
    "grad_norm": ("Gradient norm, generator", "before clipping"),
    "grad_norm_discriminator": ("Gradient norm, discriminator", "before clipping"),
    "lr": ("Learning rate", ""),
    "val_paired_l1": ("Validation: same subject", "L1, images span 2"),
    "val_age_mae_years_by_training_regressor": (
        "Validation: age MAE by the\ntraining regressor", "years"),
    "val_order_violation_rate_by_training_regressor": (
        "Validation: order violations by\nthe training regressor", "share of neighbours"),
    "val_id_similarity_by_training_embedder": (
        "Validation: identity by the\ntraining embedder", "cosine"),
    "val_psnr_db_at_source_age": ("Validation: at the source's age", "PSNR, dB"),
    "val_lpips_at_source_age": ("Validation: at the source's age", "LPIPS"),
}  # fmt: skip
"""What a logged value is, and its unit; in the order of the panels."""

_SMOOTHED_SHARE = 0.04
_LOG_RATIO = 30.0
"""Values that span more than this factor are drawn on a logarithmic scale."""


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    """Write the resolved configuration of a run as YAML."""
    import yaml

    path = folder / CONFIG_FILE
    write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path


def write_metrics(folder: Path, history: Sequence[dict[str, float]]) -> Path:
    """Write the logged values as CSV: a row each `log_every_images`, empty where not measured."""
    columns = ["num_images", *sorted({key for row in history for key in row} - {"num_images"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
    path = folder / METRICS_FILE
    write_text(path, text.getvalue())
    return path


def write_curves(folder: Path, history: Sequence[dict[str, float]], title: str) -> Path:
    """Draw every logged value over the images seen: raw pale, smoothed on top.

    What was measured now and then (validation) is drawn as points.
    """
    known = list(_TITLES)
    names = {key for row in history for key in row} - {"num_images"}
    ordered = [name for name in known if name in names] + sorted(names - set(known))
    columns = 4
    rows = max(1, -(-len(ordered) // columns))
    figure = plotting.figure(3.4 * columns, 2.4 * rows + 0.4)
    figure.suptitle(title)
    last = max((row["num_images"] for row in history), default=0)
    scale = 1000 if last >= 10_000 else 1
    for index, name in enumerate(ordered):
        axes = figure.add_subplot(rows, columns, index + 1)
        points = [(row["num_images"] / scale, row[name]) for row in history if name in row]
        what, unit = _TITLES.get(name, (name, ""))
        _draw_curve(axes, *np.array(points).T, as_points=name.startswith("val_"))
        axes.set_xlim(0, last / scale * 1.02)
        axes.set_title(what, fontsize=9)
        axes.set_ylabel(unit, fontsize=8)
        if index >= len(ordered) - columns:
            axes.set_xlabel("images seen" + (", thousands" if scale > 1 else ""), fontsize=8)
    path = folder / CURVES_FILE
    plotting.save_figure(path, figure)
    return path


def _draw_curve(axes: "Axes", xs: np.ndarray, ys: np.ndarray, as_points: bool) -> None:
    if as_points:
        axes.plot(xs, ys, "o-", markersize=3, linewidth=1.2, color=plotting.GREEN)
    else:
        axes.plot(xs, ys, linewidth=0.7, color=plotting.BLUE, alpha=0.35)
        axes.plot(xs, _smoothed(ys), linewidth=1.5, color=plotting.BLUE)
    if not as_points and (ys > 0).all() and ys.max() > _LOG_RATIO * ys.min():
        axes.set_yscale("log")
    elif (ys >= 0).all():
        # A quantity that cannot be negative is seen against its zero, unless it hardly moves.
        low, high = float(ys.min()), float(ys.max())
        if low < 0.5 * high:
            axes.set_ylim(bottom=0)


def _smoothed(ys: np.ndarray) -> np.ndarray:
    """Return a moving mean, centred; narrow at the start, where curves fall."""
    half = round(len(ys) * _SMOOTHED_SHARE)
    sums = np.concatenate([[0.0], np.cumsum(ys)])
    places = np.arange(len(ys))
    before = np.minimum(half, places)
    after = np.minimum(before, places[::-1])
    return (sums[places + after + 1] - sums[places - before]) / (before + after + 1)


class Board:
    """TensorBoard log of a run; resuming drops what was logged after the checkpoint.

    Args:
        folder: Folder of the run.
        num_images: Images seen at the checkpoint that the run goes on from; 0: a fresh run, which
            takes the place of what an earlier one logged here.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            # A log for looking at is no reason to lose a training run.
            _LOGGER.warning(
                "expected the package tensorboard, found %s: no TensorBoard log is written, "
                "the values are in %s. Install it from requirements.lock.", error, METRICS_FILE
            )  # fmt: skip
            return
        logs = folder / BOARD_FOLDER
        if not num_images:
            for stale in logs.glob("events.out.tfevents.*"):
                stale.unlink()
        # From the next image on: what was logged at the checkpoint itself is logged but once.
        purge = num_images + 1 if num_images else None
        self._writer = SummaryWriter(str(logs), purge_step=purge, flush_secs=10)

    def log(self, values: Mapping[str, float], num_images: int) -> None:
        """Add scalars at a number of images, under the headings losses, validation and run."""
        if self._writer is None:
            return
        for name, value in values.items():
            if name != "num_images":
                self._writer.add_scalar(f"{_heading(name)}/{name}", value, num_images)

    def show(self, name: str, picture_HWC: np.ndarray, num_images: int) -> None:
        """Add a picture, uint8 (H, W, 3), at a number of images."""
        if self._writer is not None:
            self._writer.add_image(name, picture_HWC, num_images, dataformats="HWC")

    def describe(self, config: Mapping[str, Any]) -> None:
        """Add the text of the resolved configuration; once, when a run begins."""
        if self._writer is None:
            return
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        # TensorBoard shows Markdown: indented by four spaces, text keeps its lines.
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), 0)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def _heading(name: str) -> str:
    if name.startswith("val_"):
        return "validation"
    run = ("lr", "grad_norm", "images_per_s", "loader_wait")
    return "run" if name.startswith(run) else "losses"
