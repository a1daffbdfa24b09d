"""A model beside the champion: the same faces, the same judges, differences face by face."""

from collections.abc import Mapping

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
    }
    return overall | measure_cells(differences, held_out, sampling, PREFIX)
