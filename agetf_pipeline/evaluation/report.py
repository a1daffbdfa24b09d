"""The report of a run, as HTML that needs nothing from outside and as Markdown."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.evaluation import report_tables as tables
from agetf_pipeline.evaluation.must_hold import Statement, number
from agetf_pipeline.evaluation.report_tables import Table


@dataclass(frozen=True)
class Picture:
    """A picture of the run folder, with what it shows."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    intro: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def build_sections(
    measures: Mapping[str, Measure],
    pictures: Mapping[str, Picture],
    anchors_years: Sequence[float],
    champion: str | None = None,
) -> list[Section]:
    """Arrange figures and pictures into the report's parts.

    Args:
        measures: Every figure by name.
        pictures: Pictures that were drawn, by `grid`, `cases`, `champion`, `read_ages`,
            `identity`, `groups`, `labels`, `histogram`, `enhancement`.
        anchors_years: The target ages.
        champion: Name of the version that the model was compared with; None without one.
    """

    def shown(*names: str) -> list[Picture]:
        return [pictures[name] for name in names if name in pictures]

    sections = [
        Section(
            "Renderings",
            "Held-out faces, each rendered at every anchor. The first column of the picture is the "
            "original. Below them the best, the median and the worst of all faces.",
            [],
            shown("grid", "cases"),
        ),
        Section(
            "Age of renderings",
            "Read by an estimator that training never used, and by the mixture of experts, from "
            "which the model's guide was distilled: the mixture flatters, the estimator does not. "
            "Their own errors on real held-out faces bound what these figures can say. The earth "
            "mover's distance compares the ages read at an anchor with those that the estimator "
            "reads of real people of that age.",
            [tables.ages(measures), *tables.anchors(measures, anchors_years)],
            shown("read_ages"),
        ),
        Section(
            "Identity",
            "Similarity to the source by an embedder that training never used. The threshold "
            "accepts one in a thousand pairs of different people; the rate of real people at the "
            "same gap of age stands beside the renderings'. A rendering in which no face is found, "
            "though one is found in its source, does not pass. A rendering is compared with the "
            "very photograph it was made from, real people with another photograph of theirs: at "
            "small gaps the renderings have it easier.",
            [tables.listed("Overall", measures, tables.IDENTITY_ROWS), tables.gaps(measures)],
            shown("identity"),
        ),
        Section(
            "Image quality",
            "Against the source, rendered at the source's own age, which training asks for by "
            "its own losses (L1, and LPIPS where it has weights); and as distributions against "
            "real faces of the target's age group. KID by the features of a network of this "
            "project is no KID as others publish it, and is named apart.",
            [tables.listed("Quality", measures, tables.QUALITY_ROWS), tables.distances(measures)],
        ),
        Section(
            "What ageing should keep",
            "Share of renderings in which an attribute reads as it does in the source.",
            [tables.attributes(measures)],
        ),
        Section(
            "Groups of faces",
            "By the source's age group and by whatever else the corpus says. Faces are drawn from "
            "every age group in turn, so means over all faces weigh the groups about alike. Cells "
            "of too few faces are suppressed.",
            [tables.worst(measures), *tables.cells(measures)],
            shown("groups"),
        ),
        Section(
            "Labels",
            "Every method on the same images, against the true age.",
            [tables.labels(measures), tables.listed("Mixture", measures, tables.LABEL_ROWS),
             tables.label_groups(measures)],
            shown("labels", "histogram"),
        ),
        Section(
            "Enhancement",
            "Degraded images against their clean originals. `gain` is enhanced minus bicubic, "
            "image by image.",
            tables.enhancement(measures),
            shown("enhancement"),
        ),
    ]  # fmt: skip
    if champion is not None:
        sections.insert(1, _champion_section(measures, champion, shown("champion")))
    return sections


def _champion_section(
    measures: Mapping[str, Measure], champion: str, pictures: list[Picture]
) -> Section:
    return Section(
        "Beside the champion",
        f"{champion} rendered the same faces, read by the same judges in this evaluation. "
        "Differences are taken face by face: this model minus the champion.",
        [tables.champion(measures), tables.champion_groups(measures)],
        pictures,
    )


def write_report(
    folder: Path,
    title: str,
    summary: str,
    statements: Sequence[Statement],
    sections: Sequence[Section],
    versions: Mapping[str, str],
    synthetic: bool,
) -> None:
    """Write `report.html` and `report.md` into a run folder.

    Args:
        folder: The run folder; pictures named in the sections lie in it.
        title: Of the report.
        summary: A plain paragraph for the top.
        statements: What the run must show, judged.
        sections: From `build_sections`.
        versions: What made the figures, by name.
        synthetic: Whether the faces are synthetic.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("agetf_pipeline.evaluation", "."),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "statements": statements,
        "sections": sections,
        "versions": dict(sorted(versions.items())),
        "synthetic": synthetic,
        "number": number,
        "embed": lambda file: _data_uri(folder / file),
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, environment.get_template(f"{name}.j2").render(values))


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
