"""What Dagster shows of a stage's report: counts, figures, rows, plots, files and MLflow links."""

import base64
import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.stages.base import StageReport

_MAX_PREVIEW_BYTES = 400_000
_MAX_PREVIEW_PX = 1400
_MAX_SHARD_PREVIEW_BYTES = 60_000
_MAX_SHARD_PREVIEW_PX = 700
"""A thousand shards leave a thousand of these in Dagster's database."""
_MAX_TABLE_ROWS = 100
_MAX_SAMPLE_ROWS = 5
_MAX_FILES = 50
_MAX_CELL = 80
_SHA256_DIGITS = 64


def report_metadata(report: StageReport, workspace: Workspace) -> dict[str, Any]:
    """Return a stage's report as asset metadata: counts, figures, links, pictures, tables."""
    metadata: dict[str, Any] = {
        "status": report.status,
        "duration_s": report.duration_s,
        "data_version": report.data_version,
        **{f"num_{name.removeprefix('num_')}": count for name, count in report.counts.items()},
        **{name: value for name, value in report.figures.items() if value is not None},
    }
    if report.messages:
        metadata["messages"] = dg.MetadataValue.md("\n".join(f"- {m}" for m in report.messages))
    per_shard = report.partition is not None and is_caf(report.partition)
    metadata |= _show_outputs(report, workspace, per_shard)
    registration = report.outputs.get("registration")
    if registration is not None:
        metadata |= _mlflow_links(workspace, workspace.resolve(registration))
    return metadata


def merge_metadata(reports: Sequence[StageReport], workspace: Workspace) -> Mapping[str, Any]:
    """Return the metadata of one asset that ran its stage several times, a row per partition.

    Files and plots are those of FFHQ-Aging, or of the first partition where it is not there.
    """
    if len(reports) == 1:
        return report_metadata(reports[0], workspace)
    shown = next((r for r in reports if r.partition == FFHQ_PARTITION), reports[0])
    names = dict.fromkeys(name for report in reports for name in report.counts)
    records = [
        dg.TableRecord(
            {"partition": report.partition or "", "status": report.status}
            | {name: report.counts.get(name, "") for name in names}
        )
        for report in reports[:_MAX_TABLE_ROWS]
    ]
    columns = ["partition", "status", *names]
    messages = [f"- {r.partition}: {m}" for r in reports for m in r.messages]
    merged: dict[str, Any] = {
        "num_partitions": len(reports),
        "duration_s": round(sum(report.duration_s for report in reports), 2),
        **{
            f"num_{name.removeprefix('num_')}": sum(r.counts.get(name, 0) for r in reports)
            for name in names
        },
        "partitions": dg.MetadataValue.table(
            records=records, schema=dg.TableSchema(columns=[dg.TableColumn(c) for c in columns])
        ),
    }
    if messages:
        merged["messages"] = dg.MetadataValue.md("\n".join(messages))
    return _show_outputs(shown, workspace, per_shard=True) | merged


def _show_outputs(report: StageReport, workspace: Workspace, per_shard: bool) -> dict[str, Any]:
    """Return the outputs' links and previews; of one per partition, those of the first."""
    shown: dict[str, Any] = {}
    for name, relative in report.outputs.items():
        path = workspace.resolve(relative)
        short = name.partition("/")[0].removesuffix(path.suffix)
        if f"file_{short}" not in shown:
            shown |= _show_output(short, path, per_shard)
            # Dagster's own fields describe the asset: its table, where it is one.
            if path.suffix == ".parquet" and path.is_relative_to(workspace.tables):
                shown = _describe_table(path, whole="/" not in name) | shown
    return shown


def _show_output(name: str, path: Path, per_shard: bool) -> dict[str, Any]:
    """Return the link to an output, and what of it can be shown."""
    shown: dict[str, Any] = {f"file_{name}": dg.MetadataValue.path(str(path))}
    if path.is_dir():
        shown[f"files_{name}"] = _files(path)
    elif not path.is_file():
        return shown
    elif path.suffix in {".png", ".jpg"}:
        limits = (
            (_MAX_SHARD_PREVIEW_BYTES, _MAX_SHARD_PREVIEW_PX)
            if per_shard
            else (_MAX_PREVIEW_BYTES, _MAX_PREVIEW_PX)
        )
        preview = _preview(path, *limits)
        if preview is not None:
            shown[f"picture_{name}"] = preview
    elif path.suffix == ".csv":
        shown[f"table_{name}"] = _table(path)
    elif path.suffix == ".parquet":
        shown[f"rows_{name}"] = _sample(path)
    elif path.suffix == ".safetensors":
        shown[f"network_{name}"] = _network(path)
    return shown


def _table(path: Path) -> dg.TableMetadataValue:
    """Return the first rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = [dg.TableRecord(dict(row)) for row in itertools.islice(reader, _MAX_TABLE_ROWS)]
        columns = [dg.TableColumn(name) for name in reader.fieldnames or []]
    return dg.MetadataValue.table(records=rows, schema=dg.TableSchema(columns=columns))


def _describe_table(path: Path, whole: bool) -> dict[str, Any]:
    """Return a table's columns, and its number of rows where the file is the whole of it."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    file = pq.ParquetFile(path)
    columns = [
        dg.TableColumn(
            field.name, str(field.type), constraints=dg.TableColumnConstraints(field.nullable)
        )
        for field in file.schema_arrow
    ]
    described: dict[str, Any] = {"dagster/column_schema": dg.TableSchema(columns=columns)}
    return described | ({"dagster/row_count": file.metadata.num_rows} if whole else {})


def _sample(path: Path) -> dg.TableMetadataValue:
    """Return the first rows of a table."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    batch = next(file.iter_batches(batch_size=_MAX_SAMPLE_ROWS), None)
    records = [
        dg.TableRecord({key: _cell(value) for key, value in row.items()})
        for row in ([] if batch is None else batch.to_pylist())
    ]
    columns = [dg.TableColumn(name) for name in file.schema_arrow.names]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def _network(path: Path) -> dg.TableMetadataValue:
    """Return what a weights file says of itself."""
    from agetf_pipeline.quality.files import describe_weights

    records = [
        dg.TableRecord({"what": name, "value": _cell(value)})
        for name, value in describe_weights(path).items()
    ]
    columns = [dg.TableColumn("what"), dg.TableColumn("value")]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def _cell(value: object) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"[{len(value)} values]"
    text = "" if value is None else str(value)
    if len(text) == _SHA256_DIGITS and " " not in text:
        return f"{text[:16]}..."
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 3]}..."


def _files(folder: Path) -> dg.TableMetadataValue:
    """Return the files of a folder, by name, with their sizes."""
    found = itertools.islice((p for p in folder.rglob("*") if p.is_file()), 20 * _MAX_FILES)
    records = [
        dg.TableRecord({"file": p.relative_to(folder).as_posix(), "bytes": p.stat().st_size})
        for p in sorted(found)[:_MAX_FILES]
    ]
    columns = [dg.TableColumn("file"), dg.TableColumn("bytes", "int")]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def _mlflow_links(workspace: Workspace, registration: Path) -> dict[str, Any]:
    """Return where the registered models are: pages of a tracking server, or its database."""
    if not registration.is_file():
        return {}
    record = read_json(registration)
    server = str(record["tracking_uri"])
    models = {"model": record, "mixture": record["mixture"]}
    shown: dict[str, Any] = {}
    for name, model in models.items():
        if model is None:
            continue
        uri = model["model"]
        shown[f"mlflow_{name}"] = uri
        shown[f"mlflow_{name}_champion"] = model["champion"]
        if server.startswith(("http://", "https://")):
            registered, _, version = uri.removeprefix("models:/").partition("/")
            page = f"{server.rstrip('/')}/#/models/{registered}/versions/{version}"
            shown[f"mlflow_{name}_page"] = dg.MetadataValue.url(page)
    if not server.startswith(("http://", "https://")):
        database = workspace.resolve(server.removeprefix("sqlite:///"))
        shown["mlflow_database"] = dg.MetadataValue.path(str(database))
        shown["mlflow_how_to_open"] = dg.MetadataValue.md(
            f"`.venv/bin/mlflow server --backend-store-uri sqlite:///{database} --port 5000`"
        )
    return shown


def _preview(path: Path, max_bytes: int, max_px: int) -> dg.MarkdownMetadataValue | None:
    data, kind = path.read_bytes(), "png" if path.suffix == ".png" else "jpeg"
    if len(data) > max_bytes:
        data, kind = _smaller(path, max_px), "jpeg"
    if len(data) > max_bytes:
        return None
    return dg.MetadataValue.md(
        f"![{path.name}](data:image/{kind};base64,{base64.b64encode(data).decode()})"
    )


def _smaller(path: Path, max_px: int) -> bytes:
    """Return a picture as JPEG, at most `max_px` wide and high."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((max_px, max_px))
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()
