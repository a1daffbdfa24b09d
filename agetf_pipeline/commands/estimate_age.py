"""`agetf estimate-age`: photographs in, ages with intervals out."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.experts import estimate_ages

_WRITERS = {".csv": "write_csv", ".json": "write_json", ".parquet": "write_parquet"}


def estimate_files(
    sources: Sequence[Path],
    out: Path,
    config: PipelineConfig,
    workspace: Workspace,
    aligned: bool = False,
) -> pl.DataFrame:
    """Estimate the age of every photograph and write what was found.

    Args:
        sources: Photographs and folders of them.
        out: File to write, `.csv`, `.json` or `.parquet`.
        config: Names the experts.
        workspace: Holds their weights and the mixture's calibration.
        aligned: Whether the faces fill the pictures already.

    Returns:
        What `experts.estimate_ages` gives: a row per photograph.

    Raises:
        DataError: There is nothing at one of `sources`, or `out` has another suffix.
        WeightsError: An expert's weights are absent.
    """
    if out.suffix not in _WRITERS:
        raise DataError(f"Expected --out to end in {', '.join(_WRITERS)}; found {out.name!r}.")
    frame = estimate_ages(sources, config, workspace, aligned)
    if out.suffix == ".csv":
        write_text(out, for_spreadsheets(frame))
        return frame
    with atomic_path(out) as temporary:
        getattr(frame, _WRITERS[out.suffix])(temporary)
    return frame
