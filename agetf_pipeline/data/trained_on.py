"""Which images a network learned from: a small Parquet beside its weights.

Images can be taken out of tables and folders, but not out of a network. Who asks to be forgotten is
told which networks saw them; the list is kept for that, and goes with every registered version.
Networks that learned from drawn faces alone have none.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.tables import write_parquet

SUFFIX = ".trained_on.parquet"
_SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False)])


@dataclass(frozen=True)
class TrainedModel:
    """A network, or a calibration, that learned from some of the images asked about.

    Attributes:
        name: Its file relative to the workspace, without the list's suffix.
        num_asked: How many of the images asked about it learned from.
        num_images: How many it learned from in all.
    """

    name: str
    num_asked: int
    num_images: int


def trained_on_path(weights: Path) -> Path:
    """Return the list that belongs to weights: beside the file, or beside the folder."""
    stem = weights.stem if weights.suffix in {".safetensors", ".json"} else weights.name
    return weights.with_name(f"{stem}{SUFFIX}")


def write_trained_on(weights: Path, image_ids: Iterable[str]) -> Path:
    """Write what a network learned from; the same images give the same bytes.

    Args:
        weights: File or folder of its weights.
        image_ids: The images, in any order.

    Returns:
        The list's file.
    """
    path = trained_on_path(weights)
    ids = sorted(set(image_ids))
    write_parquet(path, pa.table({"image_id": pa.array(ids, pa.string())}, schema=_SCHEMA))
    return path


def read_trained_on(path: Path) -> list[str]:
    """Return the images of a list, sorted.

    Args:
        path: Of `trained_on_path`.

    Raises:
        DataError: It is absent, damaged or no such list.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        return table["image_id"].to_pylist()
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise DataError(
            f"Expected a list of the images that a network learned from at {path}; found: {error}. "
            "Run the stage that trains it again, which writes it."
        ) from error


def count_asked(path: Path, image_ids: Collection[str]) -> tuple[int, int]:
    """Return how many of some images are in a list, and how many it has."""
    listed = read_trained_on(path)
    return len(set(listed) & set(image_ids)), len(listed)


def without_list(workspace: Workspace) -> list[str]:
    """Return the workspace's networks that do not say what they learned from, sorted.

    They learned from drawn faces alone, came from elsewhere, or are older than the lists.
    """
    weights = workspace.models.rglob("weights.safetensors")
    single = [*workspace.models.glob("*/*.safetensors"), *workspace.models.glob("moe/*.json")]
    found = {
        path.parent if path.parent.name == "janus" else path
        for path in (*weights, *single)
        if not {"checkpoints"} & set(path.relative_to(workspace.models).parts)
    }
    return sorted(workspace.relative(p) for p in found if not trained_on_path(p).is_file())


def models_trained_on(workspace: Workspace, image_ids: Collection[str]) -> list[TrainedModel]:
    """Return the workspace's networks that learned from any of some images, sorted by name.

    Raises:
        DataError: A list is damaged.
    """
    found = []
    for path in sorted(workspace.models.rglob(f"*{SUFFIX}")):
        num_asked, num_images = count_asked(path, image_ids)
        if num_asked:
            name = workspace.relative(path).removesuffix(SUFFIX)
            found.append(TrainedModel(name, num_asked, num_images))
    return found
