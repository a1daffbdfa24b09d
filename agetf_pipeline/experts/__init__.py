"""The age experts behind one protocol, and `estimate_ages` for photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace


def estimate_ages(
    paths: "Path | str | Sequence[Path | str]",
    config: "PipelineConfig | Path | str",
    workspace: "Workspace | None" = None,
    aligned: bool = False,
) -> "pl.DataFrame":
    """Estimate the ages of photographs with the mixture of experts.

    The networks are imported and loaded by this call, not by `import agetf_pipeline.experts`.

    Args:
        paths: Photographs and folders of them, any number.
        config: Names the experts; or a YAML file, such as configs/base.yaml.
        workspace: Holds the weights and the mixture's calibration; None: the config's own.
        aligned: Whether the faces fill the pictures already; otherwise they are found.

    Returns:
        A row per photograph, in order; see `experts.estimate.SCHEMA`.

    Raises:
        ConfigError: The config cannot be read, or names no expert.
        DataError: There is nothing at a path, or the calibration is of other weights.
        WeightsError: An expert's weights are absent, damaged or of another architecture.
    """
    from agetf_pipeline.experts.estimate import estimate_ages as estimate

    return estimate(paths, config, workspace, aligned)
