"""The truth of a synthetic corpus. No stage but evaluation reads it."""

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace

_COLUMNS = (
    "path", "image_id", "partition", "identity", "true_age_years", "degradations", "clean_path",
)  # fmt: skip


def load_truth(workspace: Workspace) -> pl.DataFrame | None:
    """Return the truth table, a row per image, sorted by `image_id`; None where there is none.

    Raises:
        DataError: The table lacks a column.
    """
    path = workspace.truth / "truth.parquet"
    if not path.exists():
        return None
    frame = pl.read_parquet(path)
    missing = sorted(set(_COLUMNS) - set(frame.columns))
    if missing:
        raise DataError(
            f"Expected the columns {list(_COLUMNS)} in {path}; missing {missing}. Delete the "
            "synthetic corpus and run `synthesize` again."
        )
    # The same bytes may have been written twice; ingest keeps one of them.
    return frame.unique("image_id", keep="first", maintain_order=True).sort("image_id")


def truth_hashes(workspace: Workspace) -> dict[str, str]:
    """Return the truth's content hash under its name, for fingerprints; empty where absent."""
    path = workspace.truth / "truth.parquet"
    return {"truth": hash_file(path)} if path.exists() else {}
