"""A page of the faces whose labels are most doubtful, for a person to look through."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.core.contact_sheet import CELL_PX, Tile, draw_sheet
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import table_path
from agetf_pipeline.moe.label_issues import write_issue_tables

NUM_FACES = 64
_COLUMNS = 8

FacesOf = Callable[[Sequence[str]], list[np.ndarray | None]]
"""The faces of some image ids, uint8 (H, W, 3) RGB each; None where one cannot be read."""


def write_label_issues(
    folder: Path,
    issues: pl.DataFrame,
    faces_of: FacesOf,
    corpus: str,
    synthetic: bool,
    num_faces: int = NUM_FACES,
) -> dict[str, Path]:
    """Write the ranked list and the page of its first faces.

    Args:
        folder: For `label_issues.csv`, `label_issues.parquet` and `label_issues.png`.
        issues: From `label_issues.find_label_issues`.
        faces_of: Gives the faces, such as `faces_of_partition`.
        corpus: What the images are, for the title.
        synthetic: Whether the faces are drawn.
        num_faces: On the page; none is a page without faces that says so.

    Returns:
        The files: `label_issues_csv`, `label_issues`, `label_issues_page`.
    """
    written = write_issue_tables(folder, issues)
    page = folder / "label_issues.png"
    faces = faces_of(issues["image_id"].head(num_faces).to_list())
    review_sheet(page, issues, faces, corpus, synthetic)
    return {**written, "label_issues_page": page}


def review_sheet(
    path: Path,
    issues: pl.DataFrame,
    faces: Sequence[np.ndarray | None],
    corpus: str,
    synthetic: bool,
) -> None:
    """Draw the most doubtful labels: faces in the order of the ranking, eight in a row.

    Under each stand the rank, the original group and the one that the mixture suggests; its age
    with the interval; how far that lies outside the original group, and the image's id.

    Args:
        path: PNG to write.
        issues: The ranked list; more rows than faces are counted in the title.
        faces: The first faces of the list, uint8 (H, W, 3), RGB, of any size; None: not readable.
        corpus: What the images are.
        synthetic: Whether the faces are drawn.
    """
    from PIL import Image

    title = f"Most doubtful labels, {corpus}{' (synthetic faces)' if synthetic else ''}"
    flagged = issues["is_issue"].sum() if issues["is_issue"].count() else None
    verdict = (
        "cleanlab cannot judge labels of one group"
        if flagged is None
        else f"cleanlab takes {flagged} for wrong"
    )
    subtitle = (
        f"the first {len(faces)} of {issues.height} labels by rank; {verdict}. "
        "Rank: original -> suggested group; the mixture's age [interval]"
    )
    rows = issues.head(len(faces)).iter_rows(named=True)
    tiles = [Tile((face,), _lines(row, face)) for row, face in zip(rows, faces, strict=True)]
    sheet = draw_sheet(title, tiles, _COLUMNS, subtitle)
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def faces_of_partition(workspace: Workspace, partition: str) -> FacesOf:
    """Return a reader of a partition's faces, as small as the page needs them."""

    def read(image_ids: Sequence[str]) -> list[np.ndarray | None]:
        wanted = pl.DataFrame({"image_id": list(image_ids)}, schema={"image_id": pl.String})
        images = pl.scan_parquet(table_path(workspace, IMAGES, partition))
        found = images.select("image_id", "face_path").join(
            wanted.lazy(), on="image_id", how="semi"
        )
        path_of = dict(found.collect().iter_rows())
        return [_read(workspace, path_of.get(image_id)) for image_id in image_ids]

    return read


def _read(workspace: Workspace, face_path: str | None) -> np.ndarray | None:
    if face_path is None:
        return None
    try:
        return load_faces(workspace, [face_path], CELL_PX)[0]
    except DataError:
        return None  # the page says so in its place; predictions of it stand in the tables


def _lines(row: dict, face: np.ndarray | None) -> tuple[str, ...]:
    age, low, high = row["age_years"], row["interval_low_years"], row["interval_high_years"]
    estimate = "no age" if age is None else f"{age:.0f} years [{low:.0f}, {high:.0f}]"
    off = row["distance_years"]
    where = "" if off is None else "inside" if off == 0 else f"{off:.0f} years off"
    return (
        f"{row['rank']}: {row['original_age_group']} -> {row['suggested_age_group']}",
        estimate if face is not None else f"unreadable; {estimate}",
        f"{where}   {row['image_id'][:8]}",
    )
