"""The mixture of experts as a reader of renderings: calibrated, with nothing fitted to them."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    from agetf_pipeline.experts.base import AgeExpert
    from agetf_pipeline.moe.calibration import Calibration


class MixtureReader:
    """Reads ages as the stage relabel does: every expert, the calibration, the mixture."""

    def __init__(
        self, config: PipelineConfig, experts: "list[AgeExpert]", calibration: "Calibration"
    ) -> None:
        self._config, self._experts, self._calibration = config, experts, calibration

    def read(self, faces_NHWC: np.ndarray) -> np.ndarray:
        """Return the mixture's ages in years, float64 (N,), NaN where it has none."""
        from agetf_pipeline.data.images import resize_rgb
        from agetf_pipeline.experts.batching import batch_sizes
        from agetf_pipeline.experts.predict import read_faces
        from agetf_pipeline.moe.labels import label_predictions

        # As large as the experts take it, as the stage predict does.
        experts = self._config.train_experts.experts.values()
        size_px = max(expert.input_px for expert in experts)
        faces = np.stack([resize_rgb(face, size_px) for face in faces_NHWC])
        names = [f"{place:09d}" for place in range(len(faces))]
        readings = read_faces(self._experts, faces, names, batch_sizes(self._config))
        # No group of the corpus is shown to the mixture: a rendering has none.
        nothing_known = pl.DataFrame({"image_id": names}).with_columns(
            age_group=pl.lit(None, pl.String), true_age_years=pl.lit(None, pl.Float32)
        )
        labels = label_predictions(
            readings, nothing_known, self._calibration, self._config.relabel
        ).sort("image_id")
        return labels["age_years"].cast(pl.Float64).fill_null(np.nan).to_numpy()


def mixture_version(config: PipelineConfig, workspace: Workspace) -> dict[str, str]:
    """Return the mixture's fingerprint: weights, calibration, and the settings that decide.

    Empty where the mixture is not asked, or where a part of it is absent.
    """
    from agetf_pipeline.registry.mixture_packaging import mixture_fingerprint

    if not config.evaluate.read_by_mixture:
        return {}
    found = mixture_fingerprint(config, workspace)
    return {} if found is None else {"mixture": found}


def load_mixture_reader(
    config: PipelineConfig, workspace: Workspace
) -> tuple[MixtureReader | None, str | None]:
    """Return the mixture that labels are made with, or None and why there is none."""
    from agetf_pipeline.core.errors import ConfigError, WeightsError
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration

    if not config.evaluate.read_by_mixture:
        return None, "the mixture was not asked (evaluate.read_by_mixture is false)"
    path = calibration_path(config.relabel, workspace)
    if not path.is_file():
        return None, "the mixture has no calibration: run the stage relabel"
    try:
        experts = load_experts(config, workspace)
    except (ConfigError, WeightsError) as error:
        return None, f"the mixture's experts cannot be loaded: {error}"
    return MixtureReader(config, experts, load_calibration(path)), None
