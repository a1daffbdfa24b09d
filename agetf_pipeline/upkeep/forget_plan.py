"""Where in a workspace the target is: every file that names, holds or may show it.

Nothing is taken on trust of what a stage should have written: all of `data`, `stats`, `models`,
`outputs` and `mlruns` is read. What is removed follows from it, and so does what is left after.
"""

import fnmatch
import os
from collections.abc import Collection, Iterator
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
from agetf_pipeline.upkeep.forget_match import Target
from agetf_pipeline.upkeep.forget_rows import ROW_SUFFIXES, count_rows
from agetf_pipeline.upkeep.forget_target import file_of

FOLDERS = ("data", "stats", "models", "outputs", "mlruns")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_TEXTS = frozenset({".html", ".htm", ".md", ".txt", ".yaml", ".yml", ".log", ".svg", ".sha256"})
_NOT_READ = frozenset({".safetensors", ".pt", ".lock", ".py", ".pyc"})
"""Never texts about images; a copy of a picture under such a name is still found by its size."""
_NETWORKS = ("models/*", "mlruns/models/*", "*/checkpoints/*", "*/mixture/*")
_SETTINGS = ("*config*.json", "tokenizer*.json", "vocab*", "merges*", "resolved.*")
"""Of networks and settings: a word in them that is also a name is no person."""
_PIECE = 1 << 24
_OVERLAP = 1 << 14

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
            `picture`: removed, since it may show the target among others; `foreign`: a copy that
            lies outside of the workspace and is reached through a link: it is named, and stays.
        num_rows: Rows that go.
        made_by: The stage that makes the file again without the target; empty: none, it is gone.
    """

    path: Path
    kind: Literal["rows", "file", "picture", "foreign"]
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
    files = list(_files(config, workspace, target))
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
    relative = _name_of(workspace, path)
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


def people_kept(workspace: Workspace, path: Path, target: Target) -> Target:
    """Return what to look for in a file: where a name would be a mere word, no people."""
    relative = _name_of(workspace, path)
    of_networks = any(fnmatch.fnmatchcase(relative, pattern) for pattern in _NETWORKS)
    is_settings = any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _SETTINGS)
    return target.without_people if of_networks or is_settings else target


def holds_any(path: Path, words: Collection[bytes]) -> bool:
    """Whether a file holds any of some words, read in pieces that overlap."""
    overlap = max(map(len, words), default=1)
    kept = b""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            data = kept + piece
            if any(word in data for word in words):
                return True
            kept = data[-overlap:]
    return False


def _inspect(
    workspace: Workspace, path: Path, target: Target, shown_in: frozenset[str] | None
) -> Action | None:
    if target.is_content(_name_of(workspace, path)):
        return Action(path, "file")
    try:
        if path.is_symlink():  # what it leads to is looked at by itself
            named = target.is_in(str(path.readlink())) or (
                path.is_file() and _is_copy(path, target)
            )
            return Action(path, "file") if named else None
        if shown_in is not None:
            stage = shows_many(workspace, path, shown_in)
            if stage is not None:
                return Action(path, "picture", made_by=stage)
        if _is_copy(path, target):
            return Action(path, "file" if _is_inside(workspace, path) else "foreign")
        its, suffix = people_kept(workspace, path, target), path.suffix.lower()
        if suffix in ROW_SUFFIXES:
            num = count_rows(path, its)
            return Action(path, "rows", num) if num else None
        if suffix == ".arrow":
            ids = [image_id.encode() for image_id in target.image_ids]
            return Action(path, "file", made_by="caption") if holds_any(path, ids) else None
        if suffix not in _PICTURES | _NOT_READ and _named_in(path, its):
            return Action(path, "file")
    except FileNotFoundError:
        return None  # gone meanwhile: a temporary file
    except OSError as error:
        raise DataError(
            f"Expected to read {path}, to see who is in it; found: {error}. Grant the right to "
            "read it, or delete it."
        ) from error
    return None


def _name_of(workspace: Workspace, path: Path) -> str:
    """Return where a file lies in the workspace, by the links that lead to it."""
    inside = path.is_relative_to(workspace.root)
    return (path.relative_to(workspace.root) if inside else path).as_posix()


def _is_copy(path: Path, target: Target) -> bool:
    """Whether a file has the bytes of the target, whatever its name."""
    may_be = target.may_be(path.stat().st_size)
    if may_be is None:  # the size is not known: weights and code, which may be large, are no faces
        may_be = path.suffix.lower() not in _NOT_READ
    return may_be and hash_file(path) in target.image_ids


def _is_inside(workspace: Workspace, path: Path) -> bool:
    """Whether a file lies in the workspace, whose large folders may be links themselves."""
    homes = [workspace.root, *(workspace.root / folder for folder in FOLDERS)]
    real = path.resolve()
    return any(real.is_relative_to(home.resolve()) for home in homes)


def _named_in(path: Path, target: Target) -> bool:
    """Whether a file is a text that names the target, read in pieces that overlap."""
    with path.open("rb") as stream:
        if b"\0" in stream.read(_OVERLAP) and path.suffix.lower() not in _TEXTS:
            return False
    kept = ""
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        while piece := stream.read(_PIECE):
            text = kept + piece
            if target.is_in(text):
                return True
            kept = text[-_OVERLAP:]
    return False


def _files(config: PipelineConfig, workspace: Workspace, target: Target) -> Iterator[Path]:
    """Yield the files that stages made, sorted; originals and what must know of them are not.

    Links to folders are followed, each folder once, and after all folders that are none: so that
    what lies in the workspace has its own name. A link to a file is yielded beside the file.
    """
    left_out = _left_out(config, workspace, target)
    visited: set[Path] = set()
    pending = [workspace.root / folder for folder in reversed(FOLDERS)]
    behind_links: list[Path] = []
    while pending or behind_links:
        path = pending.pop() if pending else behind_links.pop(0)
        if path.name == "agetf_pipeline":
            continue  # the code that is logged with each model
        real = path.resolve()
        if real in visited or any(real.is_relative_to(own) for own in left_out):
            continue
        visited.add(real)
        if path.is_dir():
            for child in sorted(path.iterdir(), reverse=True):
                if not child.is_symlink():
                    pending.append(child)
                elif child.is_dir():
                    behind_links.append(child)
                else:
                    yield child
                    behind_links.append(child.resolve())
        elif path.is_file() and not _is_list(path):
            yield path


def _left_out(config: PipelineConfig, workspace: Workspace, target: Target) -> list[Path]:
    """Return where originals lie, by any link, and the files that have to know of the target."""
    root = workspace.root
    corpora = [ffhq_folder(config, workspace), caf_folder(config, workspace), root / "data" / "raw"]
    linked = [
        Path(entry.path)
        for corpus in corpora if corpus.is_dir()
        for entry in os.scandir(corpus) if entry.is_symlink()
    ]  # fmt: skip
    own = [
        workspace.truth, workspace.state / "synthesize", workspace.state / "pull",
        workspace.tables / IMAGES.name, workspace.tables / QUARANTINE.name,
        workspace.stats / "quarantine", workspace.state / "locks", workspace.forgotten,
    ]  # fmt: skip
    originals = [file_of(workspace, path) for path in target.paths]
    tops = {path.resolve() for path in (*corpora, *linked, *own)}
    raw = [path.resolve() for path in originals]
    return [*tops, *(p for p in raw if not any(p.is_relative_to(top) for top in tops))]


def _is_list(path: Path) -> bool:
    """Whether a file says what a network learned from: it stays as long as the network."""
    return path.name.endswith(SUFFIX)
