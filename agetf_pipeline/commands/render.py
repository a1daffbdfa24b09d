"""`agetf render`: photographs in, the same faces at any ages out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.inputs import InputFace, find_files, read_face

ANCHORS_YEARS: tuple[float, ...] = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)


@dataclass(frozen=True)
class RenderResult:
    """What became of one photograph: the grid of its ages, or the reason why there is none."""

    path: Path
    grid: Path | None
    reason: str | None
    flags: tuple[str, ...]

    def __str__(self) -> str:
        notes = f" [{', '.join(self.flags)}]" if self.flags else ""
        return f"{self.path}: {self.grid or self.reason}{notes}"


def render_files(
    source: Path,
    model: str,
    out: Path,
    ages_years: Sequence[float] | None = None,
    aligned: bool = False,
    device: str = "auto",
    tracking_uri: str | None = None,
) -> list[RenderResult]:
    """Render every photograph at every age.

    Args:
        source: A photograph or a folder.
        model: Weights file, a folder that holds it, or `models:/<name>@<alias>` of the registry.
        out: Folder for `<name>_age_<years>.png` and `<name>_grid.png`.
        ages_years: 0 to 100; None for the ten anchors.
        aligned: Whether the faces fill the pictures already.
        device: As in `runtime.device`.
        tracking_uri: MLflow database or server of a `models:/` name; None for `mlflow.db` of the
            current folder.

    Returns:
        A result per photograph; one that could not be rendered has a reason.

    Raises:
        DataError: There is nothing at `source`, or an age lies outside 0 to 100.
        WeightsError: The model cannot be found or loaded.
    """
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.registry import resolve_model

    ages = list(ANCHORS_YEARS if ages_years is None else ages_years)
    here = Workspace(Path.cwd())
    renderer = Renderer.load(resolve_model(model, here, tracking_uri), device)
    files = find_files(source)
    stems = _unique_stems(files)
    return [
        _render_one(renderer, read_face(path, aligned), stem, ages, out)
        for path, stem in track(list(zip(files, stems, strict=True)), "rendering")
    ]


def _render_one(renderer, face: InputFace, stem: str, ages: list[float], out: Path):
    from agetf_pipeline.age_transformer.grid import save_grid
    from agetf_pipeline.data.images import resize_rgb

    if face.face is None:
        return RenderResult(face.path, None, face.reason, face.flags)
    resized = resize_rgb(face.face, renderer.size_px)[None]
    renderings = renderer.render(resized, ages)
    for age, picture in zip(ages, renderings[0], strict=True):
        _save_png(out / f"{stem}_age_{_spell(age)}.png", picture)
    trained_on = renderer.card.get("trained_on", "unknown data")
    grid = save_grid(
        out / f"{stem}_grid.png",
        resized,
        renderings,
        ages,
        footer=f"model trained on: {trained_on}",
    )
    return RenderResult(face.path, grid, None, face.flags)


def _unique_stems(files: list[Path]) -> list[str]:
    """Return a name per file; files of one name in different folders get a number."""
    seen: dict[str, int] = {}
    stems = []
    for path in files:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        number = seen[path.stem]
        stems.append(path.stem if number == 1 else f"{path.stem}-{number}")
    return stems


def _spell(age_years: float) -> str:
    return f"{age_years:03g}" if age_years == int(age_years) else f"{age_years:05.1f}"


def _save_png(path: Path, rgb: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
