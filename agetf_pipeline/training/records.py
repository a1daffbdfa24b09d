"""What a run leaves to look at: the resolved config, metrics, curves, TensorBoard, sample grids."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agetf_pipeline.core.files import atomic_path, write_text

_LOGGER = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
METRICS_FILE = "train_metrics.csv"
CURVES_FILE = "loss_curves.png"
SAMPLES_FILE = "train_samples.png"


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
    """Draw every logged value over the images seen."""
    from matplotlib.figure import Figure

    names = sorted({key for row in history for key in row} - {"num_images"})
    columns = 4
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    figure.suptitle(title)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        points = [(row["num_images"], row[name]) for row in history if name in row]
        if points:
            xs, ys = np.array(points).T
            axes.plot(xs, ys, linewidth=1.2, color="#2563a8")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    path = folder / CURVES_FILE
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    return path


class Board:
    """TensorBoard log of a run; resuming drops what was logged after the checkpoint."""

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
        self._writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=num_images or None, flush_secs=10
        )

    def log(self, values: dict[str, float], num_images: int) -> None:
        """Add scalars at a number of images."""
        if self._writer is None:
            return
        for name, value in values.items():
            if name != "num_images":
                self._writer.add_scalar(name, value, num_images)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
