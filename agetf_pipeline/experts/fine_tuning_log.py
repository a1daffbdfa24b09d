"""What a training leaves to look at: scalars for TensorBoard, and its curve as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.plotting import BLUE, GREY, ORANGE, RED, figure, save_figure
from agetf_pipeline.core.tuning import FitResult
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.fine_tuning import num_frozen_steps

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EVENT_FILES = "events.out.tfevents.*"
_FLUSH_S = 10  # as often as a training writes its checkpoint
_MAX_POINTS = 400


class TensorBoardLog:
    """Writes scalars as a training goes; a training that goes on writes on (a `Watcher`).

    Tags: `loss`, `lr` and `validation/mae_years`, against the number of steps done.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def started(self, step: int) -> None:
        """Open the log. A new training clears an older one's; one that goes on replaces the steps
        that it does again.
        """
        from torch.utils.tensorboard import SummaryWriter

        if step == 0 and self._folder.is_dir():
            for path in self._folder.glob(_EVENT_FILES):
                path.unlink()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(
            str(self._folder), purge_step=step + 1 if step else None, flush_secs=_FLUSH_S
        )

    def stepped(self, step: int, loss: float, lr: float) -> None:
        """Write the scalars of a step."""
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, step + 1)
            self._writer.add_scalar("lr", lr, step + 1)

    def validated(self, num_steps: int, error: float) -> None:
        """Write a validation error, in years."""
        if self._writer is not None:
            self._writer.add_scalar("validation/mae_years", error, num_steps)

    def close(self) -> None:
        """Write what is held in memory, and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def curve_path(workspace: Workspace, name: str) -> Path:
    """Return where the curve of an expert's training lies; TensorBoard's folder is beside it."""
    return workspace.root / "outputs" / "experts" / name / "training.png"


def draw_curve(
    workspace: Workspace, name: str, expert: ExpertConfig, result: FitResult, synthetic: bool
) -> None:
    """Draw the curve of an expert's training to `curve_path`.

    Args:
        workspace: The workspace.
        name: The expert's name.
        expert: Its settings.
        result: What the training went through.
        synthetic: Whether the faces were drawn.
    """
    faces = "synthetic faces" if synthetic else "the workspace's labelled faces"
    title = f"{name}, trained on {faces}"
    plot_training(curve_path(workspace, name), result, title, num_frozen_steps(expert))


def plot_training(path: Path, result: FitResult, title: str, num_frozen_steps: int = 0) -> None:
    """Draw the loss of a training, and its validation error where one was measured.

    Args:
        path: PNG to write.
        result: The losses and measurements, at least one step.
        title: What was trained, on what.
        num_frozen_steps: Steps in which only the head learned; shaded.
    """
    rows = 2 if result.validations else 1
    fig = figure(7.0, 2.6 + 2.2 * (rows - 1))
    axes = np.atleast_1d(fig.subplots(rows, 1, sharex=True))
    steps = np.arange(1, len(result.losses) + 1)
    losses = np.asarray(result.losses)
    axes[0].plot(*_thinned(steps, losses), color=GREY, linewidth=0.7, alpha=0.6, label="a step")
    window = max(1, len(losses) // 25)
    if len(losses) >= 3 * window:
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        label = f"mean of the last {window}"
        axes[0].plot(*_thinned(steps[window - 1 :], smooth), color=BLUE, label=label)
    if losses.min() > 0:  # a likelihood may go below
        axes[0].set_yscale("log")
    axes[0].set_title(title)
    axes[0].set_ylabel("training loss")
    if result.validations and result.best is not None:
        done, errors = zip(*result.validations, strict=True)
        best_step, best = result.best
        axes[1].plot(done, errors, color=ORANGE, marker="o", markersize=3)
        axes[1].plot(
            [best_step], [best], color=RED, marker="*", markersize=11, linestyle="none",
            label=f"kept: step {best_step}, {best:.2f} years",
        )  # fmt: skip
        axes[1].set_ylabel("held-out MAE (years)")
        axes[1].legend()
    for axis in axes:
        if num_frozen_steps:
            shown = "head alone" if axis is axes[0] else None
            axis.axvspan(0, num_frozen_steps, color=GREY, alpha=0.12, linewidth=0, label=shown)
    axes[0].legend()
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(0, len(losses) + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(path, fig)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return evenly chosen points, the last one among them."""
    if len(steps) <= _MAX_POINTS:
        return steps, values
    chosen = np.linspace(0, len(steps) - 1, _MAX_POINTS).round().astype(int)
    return steps[chosen], values[chosen]
