"""Figures of each group of faces: by age group and by what else is known; the worst of them."""

from collections.abc import Iterator, Mapping

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.evaluation.readings import HeldOutFaces
from agetf_pipeline.evaluation.scores import GROUPED, LESS_IS_BETTER, mean_of, unit_of


def cells_of(groups: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each cell, `<axis>=<value>`, with the rows that are in it, bool (N,).

    Args:
        groups: Values of N rows by axis; rows of an empty value are in no cell of the axis.
    """
    for axis, values in groups.items():
        known = [str(value) for value in np.unique(values) if value]
        # Ages in their order, everything else by name.
        known.sort(
            key=lambda value: (AGE_GROUPS.index(value) if value in AGE_GROUPS else -1, value)
        )
        for value in known:
            yield f"{axis}={value}", values == value


def measure_cells(
    scores: Mapping[str, np.ndarray],
    held_out: HeldOutFaces,
    sampling: Sampling,
    prefix: str = "renderings",
) -> dict[str, Measure]:
    """Return each grouped figure in each cell, `<prefix>/<figure>/<axis>=<value>`.

    Cells of fewer faces than `sampling.min_cell` are null, with their n.
    """
    return {
        f"{prefix}/{name}/{cell}": mean_of(
            scores[name][inside], held_out.identities[inside], sampling, unit_of(name)
        )
        for name in GROUPED
        if name in scores
        for cell, inside in cells_of(held_out.groups)
    }


def worst_cells(measures: Mapping[str, Measure], prefix: str = "renderings") -> dict[str, Measure]:
    """Return the worst measured cell of each grouped figure, `worst_cell/<figure>`.

    Its name stands in the note. The worst of many cells is worse than a typical one by chance
    alone: its interval is that of the cell, not of a maximum.
    """
    worst = {}
    for name in GROUPED:
        start = f"{prefix}/{name}/"
        cells = {
            key.removeprefix(start): item
            for key, item in measures.items()
            if key.startswith(start) and "=" in key and item.value is not None
        }
        if cells:
            sign = 1 if name in LESS_IS_BETTER else -1
            cell = max(cells, key=lambda key: sign * (cells[key].value or 0.0))
            worst[f"worst_cell/{name}"] = cells[cell].noted(cell)
    return worst
