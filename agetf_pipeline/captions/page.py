"""A page of images with their captions that needs nothing but itself, and a small sheet of them."""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.captions.audit import CaptionAudit
from agetf_pipeline.captions.changes import visible
from agetf_pipeline.captions.examples import Example
from agetf_pipeline.captions.flags import FLAGS
from agetf_pipeline.captions.origin import warning_of
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.core.contact_sheet import Tile, draw_sheet
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.core.workspace import FFHQ_PARTITION, is_caf, shard_of

NUM_SHEET = 12
_JPEG_QUALITY = 82
_SHEET_COLUMNS, _LINE_CHARACTERS, _NUM_LINES = 6, 20, 5


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Attributes:
        partitions: Whose captions are shown.
        prompt: What the network was asked; None where there is no caption to know it from.
        version: Of the captions.
        trained_on: What the network was trained on; None: not recorded.
        synthetic: Whether the faces are drawn.
    """

    partitions: tuple[str, ...]
    prompt: str | None
    version: CaptionVersion
    trained_on: str | None
    synthetic: bool

    @property
    def corpus(self) -> str:
        """The partitions in words."""
        return ", ".join(_name(partition) for partition in self.partitions) or "no partition"


def write_page(
    path: Path,
    subject: Subject,
    audit: CaptionAudit,
    examples: Sequence[Example],
    chosen: str = "a fixed choice from all over the corpus",
) -> None:
    """Write the page: no network, no script, the same bytes for the same captions.

    Args:
        path: HTML file.
        subject: What it is about.
        audit: Of all the captions, not of the examples alone.
        examples: What is shown.
        chosen: How the examples were chosen, in words.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("agetf_pipeline.captions", "."),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "picture": _data_uri, "figure": _figure}
    num_flagged = int((audit.rows["flags"].list.len() > 0).sum())
    write_text(
        path,
        environment.get_template("page.html.j2").render(
            subject=subject,
            warning=warning_of(subject.trained_on),
            num_images=audit.rows.height,
            num_flagged=num_flagged,
            audit=audit,
            examples=examples,
            chosen=chosen,
            flags=FLAGS,
        ),
    )


def write_sheet(path: Path, subject: Subject, examples: Sequence[Example]) -> None:
    """Draw some examples on one picture, clean captions below them; JPEG."""
    from PIL import Image

    tiles = [Tile((e.picture,), _lines(e)) for e in examples[:NUM_SHEET]]
    faces = " (synthetic faces)" if subject.synthetic else ""
    trained = subject.trained_on or "not recorded"
    sheet = draw_sheet(
        f"Captions, {subject.corpus}{faces}",
        tiles,
        _SHEET_COLUMNS,
        f"without words of age; the network was trained on: {trained}",
    )
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="JPEG", quality=85)


def _lines(example: Example) -> list[str]:
    text = example.caption or f"[{example.reason or 'no caption'}]"
    lines = textwrap.wrap(visible(text), _LINE_CHARACTERS, max_lines=_NUM_LINES, placeholder=" ...")
    return [visible(example.image_id[:12]), *lines, *[""] * (_NUM_LINES - len(lines))]


def _name(partition: str) -> str:
    if is_caf(partition):
        return f"CAF {shard_of(partition)}"
    return "FFHQ-Aging" if partition == FFHQ_PARTITION else partition


def _data_uri(picture: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "not known"
    share = name.endswith("_fraction")
    return f"{value:.1%}" if share else f"{value:.4g}"
