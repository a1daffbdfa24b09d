"""Croissant metadata of a release: what the files are, column by column, for machines.

Source: the Croissant 1.1 and Croissant RAI 1.0 specifications of MLCommons; written and validated
by mlcroissant.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from agetf_pipeline.config.register import ReleaseConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.hashing import hash_file

if TYPE_CHECKING:
    import mlcroissant

CROISSANT = "croissant.json"
_FORMATS = {
    ".parquet": "application/x-parquet",
    ".csv": "text/csv",
    ".json": "application/json",
}
_LIMITS = [
    "Ages are estimates of apparent age by networks, wrong more often for ages and groups of "
    "people that are rare in what the networks learned from. They say nothing certain about one "
    "person."
]
_BIASES = (
    "FFHQ-Aging is drawn from one photo-sharing site: young adults are many, people over 70 few."
)
_DRAWN = "The faces are drawn: nothing here says how a corpus of photographs is biased."
_PERSONAL = (
    "No name: images are named by the hash of their file, persons by a keyed hash. Ages and, "
    "through the original corpora, faces of people are personal data."
)
_USES = ["Training and measuring face-age estimation and transformation, for research."]


@dataclass(frozen=True)
class Contents:
    """What a release holds, as far as its descriptions speak of it.

    Attributes:
        synthetic: Whether the faces are drawn.
        num_images: Pictures in it.
        errors_by: By which groups the dataset card gives errors, such as `age group`.
    """

    synthetic: bool
    num_images: int = 0
    errors_by: tuple[str, ...] = ()

    @property
    def pictures(self) -> str:
        """What there is of pictures, a sentence."""
        if not self.num_images:
            return "Metadata only; no pictures."
        return f"With {self.num_images} enhanced pictures of CAF, below images/."


def write_croissant(
    folder: Path,
    settings: ReleaseConfig,
    tables: Mapping[str, Mapping[str, str]],
    contents: Contents,
    tools: list[str],
) -> Path:
    """Write `croissant.json` into a release folder, after the tables it describes.

    Args:
        folder: The release, with `<table>.parquet` and the same as CSV and JSON.
        settings: Version, and what only the publisher knows.
        tables: By name of the table, what each of its columns means.
        contents: What the release holds.
        tools: What annotated the images: names and versions.

    Raises:
        DataError: A column has no description or an unknown type, or the metadata is not valid.
    """
    import mlcroissant as mlc
    from mlcroissant._src.core.context import Context, CroissantVersion

    context = Context(conforms_to=CroissantVersion.V_1_1)
    synthetic = contents.synthetic
    words = "Synthetic: drawn faces, no photographs of people. " if synthetic else ""
    metadata = mlc.Metadata(
        ctx=context,
        name="face-age-labels-synthetic" if synthetic else "face-age-labels",
        description=words + "Age labels of FFHQ-Aging re-estimated by a mixture of experts, what "
        "enhancement did to the images of CAF, and splits that keep each person in one part. "
        f"{contents.pictures}",
        version=settings.version,
        license=[settings.licence],
        url=settings.url,
        cite_as=settings.cite_as,
        date_published=None
        if settings.date_published is None
        else datetime.combine(settings.date_published, datetime.min.time()),
        keywords=["face", "age estimation", "FFHQ-Aging", "CAF"],
        distribution=_files(mlc, context, folder, tables),
        record_sets=[
            _record_set(mlc, context, folder, name, columns) for name, columns in tables.items()
        ],
        data_biases=_biases(contents),
        data_limitations=_LIMITS,
        data_use_cases=_USES,
        personal_sensitive_information=_personal(contents),
        machine_annotation_tools=tools,
    )
    if metadata.issues.errors:
        raise DataError(
            f"Expected Croissant metadata that mlcroissant accepts; found: "
            f"{'; '.join(sorted(metadata.issues.errors))}. Change agetf_pipeline/release."
        )
    # to_json leaves dates and the like as objects; the file must not depend on the run's folder.
    write_json(folder / CROISSANT, json.loads(json.dumps(metadata.to_json(), default=str)))
    return folder / CROISSANT


def _biases(contents: Contents) -> list[str]:
    known = [_DRAWN if contents.synthetic else _BIASES]
    if contents.errors_by:
        known.append(f"Errors by {' and '.join(contents.errors_by)} stand in the dataset card.")
    return known


def _personal(contents: Contents) -> list[str]:
    if contents.synthetic:
        return ["None: the faces are drawn, and nobody's."]
    pictures = "Pictures of people" if contents.num_images else "No picture"
    return [f"{pictures}. {_PERSONAL}"]


def _files(
    mlc: Any, context: Any, folder: Path, tables: Mapping[str, Mapping[str, str]]
) -> "list[mlcroissant.FileObject | mlcroissant.FileSet]":
    found = [
        path
        for name in tables
        for path in sorted(folder.glob(f"{name}.*"))
        if path.suffix in _FORMATS
    ]
    return [
        mlc.FileObject(
            ctx=context,
            id=path.name,
            name=path.name,
            content_url=path.name,
            content_size=f"{path.stat().st_size} B",
            encoding_formats=[_FORMATS[path.suffix]],
            sha256=hash_file(path),
        )
        for path in found
    ]


def _record_set(
    mlc: Any, context: Any, folder: Path, name: str, columns: Mapping[str, str]
) -> "mlcroissant.RecordSet":
    file = f"{name}.parquet"
    schema = pl.read_parquet_schema(folder / file)
    missing = sorted(set(schema) - set(columns))
    if missing:
        raise DataError(
            f"Expected a description of every column of {file}; missing {missing}. Add them to "
            "agetf_pipeline/release/columns.py."
        )
    fields = []
    for column, kind in schema.items():
        many = isinstance(kind, pl.List)
        shape = {"is_array": True, "array_shape": "-1"} if many else {}
        fields.append(
            mlc.Field(
                ctx=context,
                id=f"{name}/{column}",
                name=column,
                description=columns[column],
                data_types=[_data_type(mlc, kind.inner if many else kind, column)],
                source=mlc.Source(
                    ctx=context,
                    file_object=file,
                    extract=mlc.Extract(ctx=context, column=column),
                ),
                **shape,
            )
        )
    return mlc.RecordSet(
        ctx=context, id=name, name=name, key=f"{name}/image_id", fields=fields,
        description=f"A row per image of {name.replace('_', ' ')}.",
    )  # fmt: skip


def _data_type(mlc: Any, kind: Any, column: str) -> Any:
    known = {
        pl.String: mlc.DataType.TEXT,
        pl.Float32: mlc.DataType.FLOAT32,
        pl.Float64: mlc.DataType.FLOAT64,
        pl.Int32: mlc.DataType.INT32,
        pl.Int64: mlc.DataType.INT64,
        pl.Boolean: mlc.DataType.BOOL,
    }
    for candidate, found in known.items():
        if kind == candidate:
            return found
    raise DataError(
        f"Expected a column of text, numbers or booleans; found {kind} in '{column}'. Add its type "
        "to agetf_pipeline/release/croissant.py."
    )
