"""A model beside the champion: the same faces, the same judges, differences face by face."""

from collections.abc import Mapping, Sequence

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling
from agetf_pipeline.evaluation.cells import measure_cells
from agetf_pipeline.evaluation.readings import HeldOutFaces
from agetf_pipeline.evaluation.scores import mean_of, unit_of

PREFIX, CHAMPION = "against_champion", "champion"


def compare(
    challenger: Mapping[str, np.ndarray],
    champion: Mapping[str, np.ndarray],
    held_out: HeldOutFaces,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Return challenger minus champion, `against_champion/<figure>`, overall and in each cell.

    Beside them the champion's own means, `champion/<figure>`.

    Differences are taken face by face before whole people are drawn: what makes a face hard for
    both cancels, so the interval is that of the difference alone.

    Args:
        challenger: A number per face and figure, from `scores.face_scores`.
        champion: Likewise, of the same faces in the same order.
        held_out: The faces.
        sampling: How intervals are made.
    """
    differences = {
        name: challenger[name] - champion[name] for name in challenger if name in champion
    }
    overall = {
        f"{prefix}/{name}": mean_of(values, held_out.identities, sampling, unit_of(name))
        for prefix, figures in ((CHAMPION, champion), (PREFIX, differences))
        for name, values in figures.items()
        # What a face adds to a distance means something in differences alone.
        if prefix == PREFIX or not name.startswith("kid")
    }
    return overall | measure_cells(differences, held_out, sampling, PREFIX)


def compare_anchors(
    challenger: Mapping[str, np.ndarray],
    champion: Mapping[str, np.ndarray],
    anchors_years: Sequence[float],
    held_out: HeldOutFaces,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Return the differences at each target age, `against_champion/<figure>/target_age=<age>`.

    A model that fails at one age alone loses little in the mean over ten.

    Args:
        challenger: A number per face and anchor, (N, A), from `scores.anchor_scores`.
        champion: Likewise.
        anchors_years: Target ages (A,).
        held_out: The faces.
        sampling: How intervals are made.
    """
    return {
        f"{PREFIX}/{name}/target_age={anchor:g}": mean_of(
            values[:, a] - champion[name][:, a], held_out.identities, sampling, unit_of(name)
        )
        for name, values in challenger.items()
        if name in champion
        for a, anchor in enumerate(anchors_years)
    }
