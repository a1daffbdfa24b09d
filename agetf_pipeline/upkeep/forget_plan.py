"""Where in a workspace the target is: every file that names, holds or may show it.

Nothing is taken on trust of what a stage should have written: all of `data`, `stats`, `models`,
`outputs` and `mlruns` is read. What is removed follows from it, and so does what is left after.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf, shard_of
from agetf_pipeline.data.corpora import caf_folder, ffhq_folder
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.trained_on import SUFFIX
from agetf_pipeline.upkeep.forget_rows import ROW_SUFFIXES, count_rows
from agetf_pipeline.upkeep.forget_target import Target

_FOLDERS = ("data", "stats", "models", "outputs", "mlruns")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_TEXTS = frozenset({".html", ".htm", ".md", ".txt", ".yaml", ".yml", ".log", ".svg", ".sha256"})
_BINARY = frozenset({".safetensors", ".pt", ".lock", ".py", ".pyc"})
_MAX_TEXT_BYTES = 512_000_000

_PLOTS_OF_RUN = frozenset(
    {
        "age_histograms.png", "enhancement.png", "groups.png", "identity.png", "label_errors.png",
        "loss_curves.png", "read_ages.png", "training.png", "ffhq_aging_age_histogram.png",
    }
)  # fmt: skip
"""Pictures of a run that show figures and no face, beside `moe_*.png`. All others are removed: a
picture that somebody adds to the report is taken for one of faces until it is named here."""


@dataclass(frozen=True)
class Action:
    """What is to be done about one file.

    Attributes:
        path: The file.
        kind: `rows`: rewritten without the target's rows; `file`: removed, it is of the target;
            `picture`: removed, since it may show the target among others.
        num_rows: Rows that go.
        made_by: The stage that makes the file again without the target; empty: none, it is gone.
    """

    path: Path
    kind: Literal["rows", "file", "picture"]
    num_rows: int = 0
    made_by: str = ""


def find_actions(
    config: PipelineConfig,
    workspace: Workspace,
    target: Target,
    ever_shown: bool,
    partitions: frozenset[str],
) -> list[Action]:
    """Return what has to be done, the tables `images` and `quarantine` left out.

    Args:
        config: Says where the corpora lie, whose files are originals.
        workspace: The workspace.
        target: What is to go.
        ever_shown: Whether stages may have drawn it: pictures of many faces go, too.
        partitions: In whose pictures it may be.

    Raises:
        DataError: A file that may name it cannot be read.
    """
    files = list(_files(config, workspace))
    actions = []
    with Progress("looking for what is to be forgotten", len(files)) as progress:
        for path in files:
            action = _inspect(workspace, path, target, partitions if ever_shown else None)
            if action is not None:
                actions.append(action)
            progress.advance()
    return actions


def shows_many(workspace: Workspace, path: Path, partitions: frozenset[str]) -> str | None:
    """Return the stage that draws a picture of many faces of these partitions; None: no such."""
    relative = workspace.relative(path)
    for pattern, stage in _patterns(partitions):
        if fnmatch.fnmatchcase(relative, pattern):
            return stage
    if not relative.startswith(("outputs/experiments/", "mlruns/")):
        return None
    if path.name == "label_issues.png" and FFHQ_PARTITION not in partitions:
        return None
    if not _shows_faces(path):
        return None
    by_training = path.name.startswith(("train_", "events."))
    stage = "train" if by_training else "evaluate"
    return stage if relative.startswith("outputs/") else ""


def _shows_faces(path: Path) -> bool:
    """Whether a file of a run is a picture of faces, or holds some."""
    if path.suffix.lower() in _PICTURES:
        return path.name not in _PLOTS_OF_RUN and not path.name.startswith("moe_")
    return path.name == "report.html" or path.name.startswith("events.out.tfevents.")


def _patterns(partitions: frozenset[str]) -> Iterator[tuple[str, str]]:
    for partition in sorted(partitions):
        yield f"stats/captions/{partition}/page.html", "caption"
        yield f"stats/captions/{partition}/sheet.jpg", "caption"
        yield f"stats/recheck/{partition}/flagged.jpg", "recheck"
        if is_caf(partition):
            yield f"data/processed/caf_enhanced/{shard_of(partition)}/contact_sheet.*", "enhance"
        if partition == FFHQ_PARTITION:
            yield "stats/label_issues.png", "relabel"
    yield "data/.state/cache/*/*.npy", "train"


def _inspect(
    workspace: Workspace, path: Path, target: Target, shown_in: frozenset[str] | None
) -> Action | None:
    if any(image_id in path.name for image_id in target.image_ids):
        return Action(path, "file")
    if shown_in is not None:
        stage = shows_many(workspace, path, shown_in)
        if stage is not None:
            return Action(path, "picture", made_by=stage)
    suffix = path.suffix.lower()
    try:
        if suffix in ROW_SUFFIXES:
            num = count_rows(path, target)
            return Action(path, "rows", num) if num else None
        if suffix in _PICTURES:
            return Action(path, "file") if hash_file(path) in target.image_ids else None
        if suffix == ".arrow":
            return Action(path, "file", made_by="caption") if _named_in(path, target) else None
        if suffix in _TEXTS or not suffix:
            return Action(path, "file") if _named_in(path, target) else None
    except FileNotFoundError:
        return None  # gone meanwhile: a temporary file
    except OSError as error:
        raise DataError(
            f"Expected to read {path}, to see who is in it; found: {error}. Grant the right to "
            "read it, or delete it."
        ) from error
    return None


def _named_in(path: Path, target: Target) -> bool:
    """Whether the text of a file, or the strings in an Arrow file, name the target."""
    if path.stat().st_size > _MAX_TEXT_BYTES and path.suffix != ".arrow":
        return False
    data = path.read_bytes()
    if path.suffix == ".arrow":
        return any(image_id.encode() in data for image_id in target.image_ids)
    return target.is_in(data.decode("utf-8", "surrogateescape"))


def _files(config: PipelineConfig, workspace: Workspace) -> Iterator[Path]:
    """Yield the files that stages made, sorted; originals and what must know of them are not."""
    root = workspace.root
    originals = [
        ffhq_folder(config, workspace), caf_folder(config, workspace), root / "data" / "raw",
        workspace.truth, workspace.state / "synthesize", workspace.state / "pull",
    ]  # fmt: skip
    own = [
        workspace.tables / IMAGES.name, workspace.tables / QUARANTINE.name,
        workspace.stats / "quarantine", workspace.state / "locks", workspace.forgotten,
    ]  # fmt: skip
    left_out = [path.resolve() for path in (*originals, *own)]
    for folder in _FOLDERS:
        pending = [(root / folder).resolve()]
        while pending:
            path = pending.pop()
            if path in left_out or path.is_symlink() or path.name == "agetf_pipeline":
                continue  # the last: the code that is logged with each model
            if path.is_dir():
                pending += sorted(path.iterdir(), reverse=True)
            elif path.is_file() and path.suffix not in _BINARY and not _is_list(path):
                yield path


def _is_list(path: Path) -> bool:
    """Whether a file says what a network learned from: it stays as long as the network."""
    return path.name.endswith(SUFFIX)
