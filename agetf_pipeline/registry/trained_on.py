"""What registered versions learned from: lists of image ids among the artifacts of their runs."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agetf_pipeline.data.trained_on import SUFFIX, count_asked
from agetf_pipeline.registry.tracking import connected

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FOLDER = "trained_on"
"""Of the artifacts of a run."""


@dataclass(frozen=True)
class TrainedVersion:
    """A registered version that learned from some of the images asked about.

    Attributes:
        model: Name of the registered model.
        version: Its number.
        aliases: The names that point at it.
        part: Which of its networks.
        num_asked: How many of the images asked about it learned from.
        num_images: How many it learned from in all.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    part: str
    num_asked: int
    num_images: int


def log_trained_on(client: "MlflowClient", run_id: str, lists: Mapping[str, Path]) -> None:
    """Log what a model's networks learned from, by their names; lists that are absent are left out.

    A version that is taken elsewhere still says who is in it.
    """
    with TemporaryDirectory() as folder:
        for name, path in sorted(lists.items()):
            if path.is_file():
                copy = Path(folder) / f"{name}{SUFFIX}"
                shutil.copyfile(path, copy)
                client.log_artifact(run_id, str(copy), FOLDER)


def versions_trained_on(
    tracking_uri: str, image_ids: Collection[str]
) -> tuple[list[TrainedVersion], list[str]]:
    """Return the registered versions that learned from any of some images.

    Args:
        tracking_uri: The registry; an SQLite file that is not there holds none.
        image_ids: The images.

    Returns:
        The versions, and names of those that do not say what they learned from: made of drawn faces
        alone they need not, and before it was recorded they could not.

    Raises:
        UnavailableError: The registry does not answer.
        DataError: A list is damaged.
    """
    sqlite = "sqlite:///"
    if tracking_uri.startswith(sqlite) and not Path(tracking_uri.removeprefix(sqlite)).is_file():
        return [], []
    found, unknown = [], []
    with connected(tracking_uri) as client, TemporaryDirectory() as folder:
        for model in client.search_registered_models():
            for version in client.search_model_versions(f"name = '{model.name}'"):
                run_id = version.run_id or ""
                files = [f.path for f in client.list_artifacts(run_id, FOLDER)] if run_id else []
                if not files:
                    unknown.append(f"{model.name} {version.version}")
                aliases = tuple(
                    sorted(str(a) for a, of in model.aliases.items() if of == version.version)
                )
                for file in files:
                    target = Path(folder) / run_id
                    target.mkdir(exist_ok=True)
                    local = Path(client.download_artifacts(run_id, file, str(target)))
                    num_asked, num = count_asked(local, image_ids)
                    if num_asked:
                        part = local.name.removesuffix(SUFFIX)
                        found.append(
                            TrainedVersion(
                                model.name, str(version.version), aliases, part, num_asked, num
                            )
                        )
    return sorted(found, key=lambda v: (v.model, int(v.version), v.part)), sorted(unknown)
