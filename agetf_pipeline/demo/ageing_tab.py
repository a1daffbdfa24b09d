"""The tab 'Ten ages': one face at ten ages, at any age, and as a film."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np

from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.demo.examples import examples
from agetf_pipeline.demo.messages import telling
from agetf_pipeline.demo.photos import FACE_CHOICES, face_choice, read_upload
from agetf_pipeline.demo.pictures import face_row, pair, readings_of
from agetf_pipeline.demo.services import Services

if TYPE_CHECKING:
    from agetf_pipeline.age_transformer.renderer import RenderedPhoto

_KEEP_S = 3600.0
_NUM_KEPT = 32


@dataclass(frozen=True)
class Shown:
    """What one visitor looks at: the face, its renderings and the model that made them."""

    photo: "RenderedPhoto"
    model: str


def add_tab(services: Services) -> None:
    """Add the tab's components and what they do, inside the `gr.Tab` that is open."""
    import gradio as gr

    choices = [(choice.label, choice.reference) for choice in services.models()]
    shown = gr.State(None, time_to_live=_KEEP_S)
    with gr.Row():
        with gr.Column(scale=2):
            upload = gr.File(
                label="Photograph (JPEG, PNG or WebP)", type="filepath", height=130,
                elem_id="ageing-upload",
            )  # fmt: skip
            face = gr.Dropdown(list(FACE_CHOICES), value="only", label="Face")
        with gr.Column(scale=3):
            gallery = gr.Gallery(
                [(example.rgb, example.caption) for example in examples()],
                label="Or pick a drawn face", columns=3, allow_preview=False, interactive=False,
                object_fit="cover", elem_id="ageing-examples", buttons=[],
            )  # fmt: skip
        with gr.Column(scale=2):
            model = gr.Dropdown(
                choices, value=choices[0][1] if choices else None, label="Model",
                info=None if choices else "No model yet: run the stages train and register.",
            )  # fmt: skip
            gr.Slider(
                0, 3, value=0, label="Guidance", interactive=False,
                info="This model knows no strength of guidance: it renders without.",
            )  # fmt: skip
    row = gr.HTML("<p>The ten ages appear here.</p>", elem_id="ageing-row")
    age = gr.Slider(0, 100, value=40, step=1, label="Age in years", elem_id="ageing-age")
    with gr.Row():
        swipe = gr.ImageSlider(
            label="Original and the chosen age: swipe", interactive=False, format="png",
            buttons=["fullscreen"], max_height=380, elem_id="ageing-swipe",
        )  # fmt: skip
        side = gr.HTML("", elem_id="ageing-pair")
    with gr.Row():
        grid = gr.DownloadButton("Grid (PNG)", interactive=False, elem_id="ageing-grid")
        files = gr.DownloadButton("Pictures (ZIP)", interactive=False, elem_id="ageing-files")
        film = gr.Button("Make the film", interactive=False, elem_id="ageing-film")
        gif = gr.DownloadButton("Film (GIF)", interactive=False, elem_id="ageing-gif")
        mp4 = gr.DownloadButton("Film (MP4)", interactive=False, elem_id="ageing-mp4")

    def show(rgb: np.ndarray, flags: tuple[str, ...], reference: str | None, years: float) -> tuple:
        seen = _render_ten(services, rgb, flags, reference)
        made = _write(services, seen, ("grid", "files"))
        one = _render_one(services, seen, years)
        return (
            seen, face_row(seen.photo.renderings, ANCHORS_YEARS,
                           readings_of(services, seen.photo.renderings),
                           _trained_on(services, seen.model)),
            *one,
            gr.DownloadButton(value=made["grid"], interactive=True),
            gr.DownloadButton(value=made["zip"], interactive=True),
            gr.Button(interactive=True),
            gr.DownloadButton(value=None, interactive=False),
            gr.DownloadButton(value=None, interactive=False),
        )  # fmt: skip

    def from_upload(path: str | None, which: str, reference: str | None, years: float) -> Any:
        if path is None:
            return [gr.skip()] * len(outputs)
        with telling():
            found = read_upload(path, face_choice(which))
            return show(found.rgb, found.flags, reference, years)

    def from_example(reference: str | None, years: float, event: gr.SelectData) -> Any:
        with telling():
            return show(examples()[int(event.index)].rgb, (), reference, years)

    def again(seen: Shown | None, reference: str | None, years: float) -> Any:
        if seen is None:
            return [gr.skip()] * len(outputs)
        with telling():
            return show(seen.photo.face, seen.photo.flags, reference, years)

    def move(seen: Shown | None, years: float) -> Any:
        if seen is None:
            return gr.skip(), gr.skip()
        with telling():
            return _render_one(services, seen, years)

    def make_film(seen: Shown | None) -> Any:
        with telling():
            if seen is None:
                raise DataError("There is no face yet: give a picture first.")
            made = _write(services, seen, ("gif", "mp4"))
        return tuple(gr.DownloadButton(value=made[kind], interactive=True) for kind in made)

    outputs = [shown, row, swipe, side, grid, files, film, gif, mp4]
    private: dict[str, Any] = {"api_visibility": "private"}
    given = [upload, face, model, age]
    upload.change(from_upload, given, outputs, **private)
    face.input(from_upload, given, outputs, **private)
    gallery.select(from_example, [model, age], outputs, **private)
    model.input(again, [shown, model, age], outputs, **private)
    age.change(
        move, [shown, age], [swipe, side], trigger_mode="always_last", show_progress="minimal",
        **private,
    )  # fmt: skip
    film.click(make_film, [shown], [gif, mp4], **private)


def _render_ten(
    services: Services, rgb: np.ndarray, flags: tuple[str, ...], reference: str | None
) -> Shown:
    """Render a face (uint8 (H, H, 3), aligned) at the ten anchors."""
    from agetf_pipeline.age_transformer.renderer import RenderedPhoto
    from agetf_pipeline.core.errors import WeightsError

    if reference is None:
        raise WeightsError(
            "There is no model to render with yet. Run the stages train and register, or start "
            "the app with --model."
        )
    with services.lock:
        photo = services.renderer(reference).render_photo(rgb, ANCHORS_YEARS, aligned=True)
    return Shown(RenderedPhoto(photo.face, photo.renderings, flags), reference)


def _render_one(services: Services, seen: Shown, years: float) -> tuple[Any, str]:
    """Return the original and one age, to swipe and side by side."""
    with services.lock:
        renderer = services.renderer(seen.model)
        face = seen.photo.face
        if face.shape[0] != renderer.size_px:
            raise DataError("The model has changed meanwhile: choose it again.")
        rendered = renderer.render(face[None], [years])[0]
        readings = readings_of(services, np.concatenate([face[None], rendered]))
    return (face, rendered[0]), pair(face, rendered[0], years, readings)


def _trained_on(services: Services, reference: str) -> str:
    return str(services.renderer(reference).card.get("trained_on", "unknown data"))


def _write(services: Services, seen: Shown, formats: tuple[Any, ...]) -> dict[str, str]:
    """Write files to download; return their paths by kind (`grid`, `zip`, `gif`, `mp4`)."""
    from agetf_pipeline.age_transformer.morph import morph_ages
    from agetf_pipeline.commands.render import write_renderings

    downloads = services.folder / "downloads"
    _sweep(downloads)
    folder = Path(mkdtemp(dir=downloads))
    ages = list(ANCHORS_YEARS)
    films = morph_ages(ages) if "gif" in formats else []
    with services.lock:
        renderer = services.renderer(seen.model)
        outputs = write_renderings(
            renderer, seen.photo, ages, films, folder / "pictures" / "face", formats
        )
    made = {path.suffix[1:]: str(path) for path in outputs if path.suffix in (".gif", ".mp4")}
    if "files" in formats:
        made["grid"] = str(outputs[0].rename(folder / "face_grid.png"))
        made["zip"] = shutil.make_archive(str(folder / "face_ages"), "zip", folder / "pictures")
    return made


def _sweep(downloads: Path) -> None:
    """Delete what was made for downloads, but for the last few: a person may still fetch them."""
    downloads.mkdir(exist_ok=True)
    by_age = sorted(downloads.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    for folder in by_age[:-_NUM_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
