"""Plots: one style, no display, and the same bytes for the same numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE: tuple[str, ...] = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F", "#000000",
)  # fmt: skip
"""Colours that people with colour-blindness tell apart (Okabe and Ito 2008; its yellow darkened,
which would vanish on white)."""

BLUE, ORANGE, GREEN, RED, PINK, SKY, OCHRE, BLACK = PALETTE
GREY = "#7F7F7F"

_DPI = 120


def figure(width_in: float, height_in: float) -> "Figure":
    """Return an empty figure that draws without a display and outside pyplot's global state.

    Args:
        width_in: Width in inches.
        height_in: Height in inches.

    Returns:
        The figure; ask it for axes with `subplots(rows, columns)`.
    """
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Matplotlib looks its style up in global settings while it makes each part. It finds ours
    # during these calls alone: the reader's own settings stay as they are.
    class StyledAxes(Axes):
        def set_title(self, *args: Any, **kwargs: Any) -> Any:
            with mpl.rc_context(_style()):
                return super().set_title(*args, **kwargs)

        def legend(self, *args: Any, **kwargs: Any) -> Any:
            with mpl.rc_context(_style()):
                return super().legend(*args, **kwargs)

    class StyledFigure(Figure):
        def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
            if not {"projection", "polar", "axes_class"} & kwargs.keys():
                kwargs["axes_class"] = StyledAxes
            with mpl.rc_context(_style()):
                return super().add_subplot(*args, **kwargs)

    made = StyledFigure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(made)
    return made


def save_figure(path: Path, fig: "Figure") -> None:
    """Write a figure atomically; a PNG carries neither a date nor the version of matplotlib.

    Args:
        path: File to write; its suffix chooses the format.
        fig: The figure, from `figure`.
    """
    import matplotlib as mpl

    metadata: dict[str, Any] = {"Software": None} if path.suffix == ".png" else {}
    with atomic_path(path) as temporary, mpl.rc_context(_style()):
        fig.savefig(temporary, dpi=_DPI, metadata=metadata)


def _style() -> Any:  # matplotlib types its keys as literals
    from cycler import cycler

    return {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.labelsize": 9,
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs everywhere
        "grid.alpha": 0.3,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "svg.hashsalt": "agetf",  # otherwise random element ids
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
    }
