"""`agetf render`: photographs in, the same faces at any ages out."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from agetf_pipeline.age_transformer.renderer import Precision, RenderedPhoto, Renderer
    from agetf_pipeline.data.photos import FaceChoice

ANCHORS_YEARS: tuple[float, ...] = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)
Format = Literal["grid", "files", "gif", "mp4"]
FORMATS: tuple[Format, ...] = ("grid", "files", "gif", "mp4")
_DEFAULT_FORMATS: tuple[Format, ...] = ("grid", "files")
# Ages of a morph that are rendered in one pass: at 512 px all of them would take gigabytes.
_AGES_PER_PASS = 12


@dataclass(frozen=True)
class RenderResult:
    """What became of one photograph: the files written, or the reason why there are none."""

    path: Path
    outputs: tuple[Path, ...]
    reason: str | None
    flags: tuple[str, ...]

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason  # it names the file
        notes = f" [{', '.join(self.flags)}]" if self.flags else ""
        first, *others = self.outputs
        more = f" and {len(others)} more" if others else ""
        return f"{self.path}: {first}{more}{notes}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf render` takes."""
    add = parser.add_argument
    add("--input", type=Path, required=True, help="a photograph or a folder")
    add(
        "--model",
        required=True,
        help="weights file, run folder, exported program (.pt2), or models:/<name>@<alias>",
    )
    add("--out", type=Path, required=True, help="folder for the pictures")
    add("--ages", type=float, nargs="+", metavar="YEARS", help="0 to 100; default: the ten anchors")
    add(
        "--format", nargs="+", choices=FORMATS, default=list(_DEFAULT_FORMATS),
        help="grid: one picture; files: one per age; gif, mp4: a film from the lowest age to the "
        "highest and back; default: grid files",
    )  # fmt: skip
    add("--aligned", action="store_true", help="faces fill the pictures already: do not search")
    add(
        "--face", type=parse_face, default="only", metavar="largest|N",
        help="which face where there are several, 1 being the most prominent; default: refuse",
    )  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="default: fp32")
    add(
        "--compile", action="store_true",
        help="torch.compile: pays after many photographs; needs a C++ compiler",
    )  # fmt: skip
    add("--tracking-uri", help="MLflow server or database of models:/ names; default: mlflow.db")


def parse_face(text: str) -> "FaceChoice":
    """Read `--face`: `largest`, or a number from 1."""
    if text in ("only", "largest"):
        return text  # type: ignore[return-value]
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected largest or a number from 1; found {text!r}")


def render_files(
    source: Path,
    model: str,
    out: Path,
    ages_years: Sequence[float] | None = None,
    aligned: bool = False,
    device: str = "auto",
    tracking_uri: str | None = None,
    formats: Sequence[Format] = _DEFAULT_FORMATS,
    face: "FaceChoice" = "only",
    precision: "Precision" = "fp32",
    compiled: bool | str = False,
) -> list[RenderResult]:
    """Render every photograph at every age.

    Args:
        source: A photograph or a folder.
        model: Weights file, a folder that holds it, an exported program, or
            `models:/<name>@<alias>` of the registry.
        out: Folder for `<name>_grid.png`, `<name>_age_<years>.png`, `<name>_morph.gif`, `.mp4`.
        ages_years: 0 to 100; None for the ten anchors. A film runs from the lowest to the highest.
        aligned: Whether the faces fill the pictures already.
        device: As in `runtime.device`.
        tracking_uri: MLflow database or server of a `models:/` name; None for `mlflow.db` of the
            current folder.
        formats: What to write: `grid`, `files`, `gif`, `mp4`.
        face: Which face where there are several.
        precision: `fp32` or `bf16`.
        compiled: Whether to use `torch.compile`.

    Returns:
        A result per photograph; one that could not be rendered has a reason.

    Raises:
        DataError: There is nothing at `source`, an age lies outside 0 to 100, a film is asked for
            of one age, or no MP4 can be encoded here.
        WeightsError: The model cannot be found or loaded.
        ConfigError: There is no such device, or `torch.compile` does not work.
    """
    from agetf_pipeline.age_transformer.morph import morph_ages
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.data.inputs import find_files
    from agetf_pipeline.registry import resolve_model

    ages = list(ANCHORS_YEARS if ages_years is None else ages_years)
    wrong = [age for age in ages if not 0 <= age <= 100]
    if wrong or not ages:
        raise DataError(
            f"Expected ages from 0 to 100 years; found {wrong or 'none'}. Give, say, 5 33 80."
        )
    film_ages = morph_ages(ages) if {"gif", "mp4"} & set(formats) else []
    weights = resolve_model(model, Workspace(Path.cwd()), tracking_uri)
    renderer = Renderer.load(weights, device, precision, compiled)
    files = find_files(source)
    results = []
    for path, stem in track(list(zip(files, _unique_stems(files), strict=True)), "rendering"):
        try:
            rendered = renderer.render_photo(path, ages, aligned, face)
        except DataError as error:
            results.append(RenderResult(path, (), str(error), ()))
            continue
        outputs = write_renderings(renderer, rendered, ages, film_ages, out / stem, formats)
        results.append(RenderResult(path, tuple(outputs), None, rendered.flags))
    return results


def write_renderings(
    renderer: "Renderer", rendered: "RenderedPhoto", ages: list[float], film_ages: list[float],
    stem: Path, formats: Sequence[Format],
) -> list[Path]:  # fmt: skip
    """Write what was asked for of one photograph; `stem` is the start of every file's path."""
    import numpy as np

    from agetf_pipeline.age_transformer.grid import save_grid
    from agetf_pipeline.age_transformer.morph import draw_frames, save_gif, save_mp4

    outputs = []
    if "grid" in formats:
        outputs.append(
            save_grid(
                stem.with_name(f"{stem.name}_grid.png"),
                rendered.face[None],
                rendered.renderings[None],
                ages,
                footer=f"model trained on: {renderer.card.get('trained_on', 'unknown data')}",
            )
        )
    if film_ages:
        parts = [
            renderer.render(rendered.face[None], film_ages[start : start + _AGES_PER_PASS])[0]
            for start in range(0, len(film_ages), _AGES_PER_PASS)
        ]
        frames = draw_frames(np.concatenate(parts), film_ages)
        if "gif" in formats:
            outputs.append(save_gif(stem.with_name(f"{stem.name}_morph.gif"), frames))
        if "mp4" in formats:
            outputs.append(save_mp4(stem.with_name(f"{stem.name}_morph.mp4"), frames))
    if "files" in formats:
        for age, picture in zip(ages, rendered.renderings, strict=True):
            outputs.append(stem.with_name(f"{stem.name}_age_{_spell(age)}.png"))
            _save_png(outputs[-1], picture)
    return outputs


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


def _save_png(path: Path, rgb: "np.ndarray") -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
