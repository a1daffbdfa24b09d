"""The paper plan for 10 and 100 million images, from what was measured: docs/scale.md.

    python -m benchmarks --json rows.json
    python -m benchmarks.plan rows.json [--assume mine.json]

Prints Markdown. What an image costs of the processor comes from the rows of `make bench`; a stage
whose row is absent is "not measured", and nothing is put in its place. What a row of a table takes
is measured here, by writing some. Everything else is an assumption, listed with its source, which a
file can replace: `{"core_hour": 0.03, "num_machines": 20}`.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.rows import Row, from_json

SIZES = (10_000_000, 100_000_000)
_HOUR_S, _DAY_S, _GB = 3600.0, 86_400.0, 1e9


@dataclass(frozen=True)
class Assumption:
    """A number that this plan stands on, with where it comes from."""

    value: float
    source: str


ASSUMPTIONS: dict[str, Assumption] = {
    "num_machines": Assumption(10, "an input"),
    "cores_per_machine": Assumption(32, "an input: cores like that of the measured machine"),
    "core_hour": Assumption(0.05, "an input: price of a core's hour, in your currency"),
    "gpu_hour": Assumption(2.0, "an input: price of a GPU's hour"),
    "disk_gb_month": Assumption(0.1, "an input: price of a shared file system"),
    "object_gb_month": Assumption(0.02, "an input: price of an object store"),
    "images_per_partition": Assumption(50_000, "an input: see below"),
    "efficiency": Assumption(0.9, "two processes on one machine were wanted to do 1.8 times the "
                             "work of one; more machines were not tried"),
    "share_colourised": Assumption(0.3, "an input: of your photographs"),
    "share_super_resolved": Assumption(0.5, "an input: of your photographs"),
    "super_resolved_px": Assumption(128, "an input: side of what is enlarged; cost is as area"),
    "original_bytes": Assumption(110e3, "JPEG of 512 px, quality 95: mean of 5 photographs; "
                                 "FFHQ's PNGs of 1024 px are 1.27 MB"),
    "face_bytes": Assumption(276e3, "PNG of 512 px, level 1: mean of 5 photographs"),
    "enhanced_bytes": Assumption(276e3, "the same, at enhance.target_px of 512"),
    "sidecar_bytes": Assumption(900, "a JSON beside each enhanced copy"),
    "embedding_width": Assumption(2048, "Janus-Pro-1B; two vectors an image, float16"),
    "events_bytes": Assumption(56e3, "SQLite, a shard and asset with its checks: 75 shards of "
                               "caf_images grew the instance by 4.2 MB"),
    "assets_per_shard": Assumption(4, "the job caf_shard"),
    "event_s": Assumption(0.118, "PostgreSQL: 1,000 materialisations took 118 s in one run"),
    "tick_s_per_1000": Assumption(0.28, "sensor, 1,000 shards, nothing new (1.6 s the first time)"),
    "shards_per_run": Assumption(1, "AGETF_SHARDS_PER_RUN for shards of this size; 25 by default"),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Work of a stage that rows of `make bench` measure.

    Attributes:
        stage: The stage's verb, with what of it.
        row: Pattern that the names of rows begin with; their costs are added.
        bound: What bounds it.
        factor: Name of the assumption that says for which share of the images it is done.
        less: Pattern of rows whose costs are taken off: what they measure stands elsewhere.
        times: The published network over what was measured of it.
    """

    stage: str
    row: str
    bound: str
    factor: str | None = None
    less: str | None = None
    times: float = 1.0


_THREE, _FOUR = r"relabel: (resnet50|vgg16|mivolo)$", r"relabel: the four experts$"
_DEPTH = 24.0
"""Janus is measured with one layer of 24, and a 24th of the vocabulary."""
PARTS = (
    Part("ingest", r"ingest: jpe?g", "decoding; then reading from the share"),
    Part("predict: three networks", _THREE, "networks"),
    Part("predict: Janus", _FOUR, "network", less=_THREE, times=_DEPTH),
    Part("enhance: colour", r"enhance: DDColor", "network", "share_colourised"),
    Part("enhance: enlarge", r"enhance: RRDBNet", "network, by far", "share_super_resolved"),
    Part("recheck: three networks", _THREE, "networks", "share_touched"),
    Part("recheck: Janus", _FOUR, "network", "share_touched", _THREE, _DEPTH),
    Part(
        "caption", r"caption: Janus-Pro", "network: memory bandwidth while it writes words",
        times=_DEPTH,
    ),
)  # fmt: skip


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("rows", nargs="?", type=Path, help="what `benchmarks --json` wrote")
    parser.add_argument("--assume", type=Path, help="JSON: assumptions to replace, by name")
    options = parser.parse_args()
    given = json.loads(options.assume.read_text()) if options.assume else {}
    if unknown := sorted(set(given) - set(ASSUMPTIONS)):
        parser.error(f"expected names of {', '.join(ASSUMPTIONS)}; found {', '.join(unknown)}")
    values = {name: float(given.get(name, each.value)) for name, each in ASSUMPTIONS.items()}
    rows = from_json(json.loads(options.rows.read_text())) if options.rows else []
    with tempfile.TemporaryDirectory() as folder:
        table_bytes = measure_tables(Path(folder), int(values["embedding_width"]))
    print("\n\n".join(plan(rows, values, table_bytes, given)))


def plan(
    rows: Sequence[Row],
    values: Mapping[str, float],
    table_bytes: Mapping[str, float],
    given: Iterable[str] = (),
) -> list[str]:
    """Return the plan's tables, in Markdown.

    Args:
        rows: Of `make bench`.
        values: Assumptions by name.
        table_bytes: Bytes an image, by table.
        given: Names of the assumptions that a reader has replaced.
    """
    stated = [
        (name, f"{values[name]:g}", "given" if name in given else each.source)
        for name, each in ASSUMPTIONS.items()
    ]
    return [
        "### Time and cost\n\n" + _table(_header(values), _compute(rows, values)),
        "### Storage, GB\n\n" + _storage(values, table_bytes),
        "### Counts\n\n" + _table(("what", *_sizes()), _counts(values, table_bytes)),
        "### Assumptions\n\n" + _table(("name", "value", "source"), stated),
    ]  # fmt: skip


def cost_of(
    part: Part, rows: Sequence[Row], values: Mapping[str, float], gpu: bool = False
) -> float | None:
    """Return seconds an image of all: of the processor, or of a GPU; None: no row measured it."""
    each = _cost_of_rows(part.row, rows, gpu)
    less = 0.0 if part.less is None else _cost_of_rows(part.less, rows, gpu)
    if each is None or less is None:
        return None
    touched = 1 - (1 - values["share_colourised"]) * (1 - values["share_super_resolved"])
    share = 1.0 if part.factor is None else {**values, "share_touched": touched}[part.factor]
    area = (values["super_resolved_px"] / 128) ** 2 if "enlarge" in part.stage else 1.0
    return (each - less) * part.times * share * area


def _cost_of_rows(pattern: str, rows: Sequence[Row], gpu: bool) -> float | None:
    named = [
        row for row in rows if re.match(pattern, row.stage.removesuffix(", GPU"), re.IGNORECASE)
    ]
    costs = [
        row.ours_s[0 if gpu else 1]
        for row in named
        if row.ours_s is not None and row.stage.endswith(", GPU") == gpu
    ]
    return sum(costs) if costs else None


def _compute(rows: Sequence[Row], values: Mapping[str, float]) -> list[tuple[str, ...]]:
    lines, measured = [], []
    for part in PARTS:
        each = cost_of(part, rows, values)
        share = "all" if part.factor is None else part.factor.replace("_", " ")
        lines.append((part.stage, *_spent(each, values), *_on_gpu(part, rows, values), share,
                      part.bound))  # fmt: skip
        measured += [] if each is None else [each]
    name = "all of these" if len(measured) == len(PARTS) else f"the {len(measured)} measured"
    lines.append((f"**{name}**", *_spent(sum(measured) or None, values), "", "", "", ""))
    return lines


def _on_gpu(part: Part, rows: Sequence[Row], values: Mapping[str, float]) -> tuple[str, str]:
    each = cost_of(part, rows, values, gpu=True)
    if each is None:
        return "not measured", ""
    return f"{each:.3g}", f"{SIZES[0] * each / _HOUR_S * values['gpu_hour']:,.0f}"


def _spent(each_s: float | None, values: Mapping[str, float]) -> list[str]:
    if each_s is None:
        return ["not measured", *[""] * (2 * len(SIZES))]
    num_cores = values["num_machines"] * values["cores_per_machine"]
    seconds = [n * each_s / values["efficiency"] for n in SIZES]
    days = [f"{s / num_cores / _DAY_S:,.2g} days" for s in seconds]
    return [f"{each_s:.3g}", *days, *(f"{s / _HOUR_S * values['core_hour']:,.0f}" for s in seconds)]


def _header(values: Mapping[str, float]) -> list[str]:
    cores = f"{values['num_machines']:g} x {values['cores_per_machine']:g} cores"
    return [
        "stage", "processor s an image", *(f"{s} on {cores}" for s in _sizes()),
        *(f"{s}, price" for s in _sizes()), "GPU s an image", f"{_sizes()[0]} on GPUs, price",
        "of", "bound by",
    ]  # fmt: skip


def _sizes() -> list[str]:
    return [f"{size // 1_000_000} million" for size in SIZES]


def _storage(values: Mapping[str, float], table_bytes: Mapping[str, float]) -> str:
    each = {
        "originals": values["original_bytes"],
        "face crops (none where faces are aligned)": values["face_bytes"],
        "enhanced copies": values["enhanced_bytes"] + values["sidecar_bytes"],
        **{f"table `{name}`": size for name, size in table_bytes.items()},
        "index of embeddings": 4.0 * values["embedding_width"],
    }
    lines = [
        (name, f"{size:,.0f}", *(f"{n * size / _GB:,.0f}" for n in SIZES))
        for name, size in each.items()
    ]
    total = sum(each.values())
    lines.append(("**all**", f"{total:,.0f}", *(f"{n * total / _GB:,.0f}" for n in SIZES)))
    for kind in ("disk", "object"):
        price = values[f"{kind}_gb_month"]
        months = (f"{n * total / _GB * price:,.0f}" for n in SIZES)
        lines.append((f"a month in a {'file system' if kind == 'disk' else 'bucket'}", "", *months))
    return _table(("what", "bytes an image", *_sizes()), lines)


def _counts(values: Mapping[str, float], table_bytes: Mapping[str, float]) -> list[tuple[str, ...]]:
    shards = [n / values["images_per_partition"] for n in SIZES]
    made = [n * values["assets_per_shard"] for n in shards]
    return [
        ("files of pictures (original, crop, copy, sidecar)", *(f"{4 * n:,}" for n in SIZES)),
        ("files in the folders of one shard, each", *[f"{values['images_per_partition']:,.0f} to "
                                                 f"{2 * values['images_per_partition']:,.0f}"] * 2),
        ("shards", *(f"{n:,.0f}" for n in shards)),
        ("files of tables, reports, locks", *(f"{n * (4 * len(table_bytes) + 10):,.0f}"
                                              for n in shards)),
        ("runs of a backfill", *(f"{n / values['shards_per_run']:,.0f}" for n in shards)),
        ("materialisations", *(f"{n:,.0f}" for n in made)),
        ("seconds to log them", *(f"{n * values['event_s']:,.0f}" for n in made)),
        ("Dagster's database, GB", *(f"{n * values['events_bytes'] / _GB:,.2f}" for n in made)),
        ("sensor tick, s (extrapolated, linear)",
         *(f"{n / 1000 * values['tick_s_per_1000']:,.2f}" for n in shards)),
        ("rows of the training manifest, one file", *(f"{n:,}" for n in SIZES)),
    ]  # fmt: skip


def measure_tables(folder: Path, width: int, num_images: int = 4096) -> dict[str, float]:
    """Return bytes an image takes in each table, by writing some: numbers are random, as real.

    Args:
        folder: Where to write.
        width: Of an embedding.
        num_images: Rows to write; a row group.
    """
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data import schemas
    from agetf_pipeline.data.tables import empty_frame, table_path, write_table
    from benchmarks.corpus import EXPERTS, image_ids, write_images, write_labels

    workspace, partition = Workspace(folder), "caf/a"
    draw = np.random.default_rng(0)
    ids = image_ids(0, num_images, num_images, 0)
    paths = [f"data/raw/caf/a/{image_id}.jpg" for image_id in ids]
    write_images(workspace, partition, num_images, paths)
    write_labels(workspace, partition, num_images)

    def write(spec: schemas.TableSpec, ids: pl.Series, **columns: object) -> None:
        schema = empty_frame(spec).schema
        frame = pl.DataFrame({"image_id": ids, **columns})
        for name, kind in schema.items():
            if name in frame.columns:
                continue
            values: object = None
            if kind.is_float():
                values = pl.Series(draw.normal(30, 10, len(ids)))
            elif kind == pl.Boolean:
                values = pl.Series(draw.random(len(ids)) < 0.5)
            elif name.endswith("sha256"):
                values = image_ids(0, len(ids), len(ids), 1)
            elif name.endswith("path"):
                values = pl.Series([f"data/processed/caf/a/{one}.png" for one in ids])
            elif kind == pl.List(pl.String):
                values = pl.lit([], pl.List(pl.String))
            elif name == "identity":
                values = pl.Series([f"caf:{n // 5}" for n in range(len(ids))])
            else:
                values = pl.lit(_CONSTANTS.get(kind), kind) if kind in _CONSTANTS else pl.lit(None)
            frame = frame.with_columns(**{name: values})
        write_table(
            workspace, spec, partition, frame.select(list(schema)).cast(dict(schema.items()))
        )

    bins = draw.dirichlet(np.ones(101), num_images * len(EXPERTS)).astype(np.float32)
    write(schemas.PREDICTIONS, ids.repeat_by(len(EXPERTS)).explode(),
          expert=list(EXPERTS) * num_images,
          distribution=pl.Series(bins).arr.to_list())  # fmt: skip
    vectors = draw.normal(size=(2, num_images, width)).astype(np.float16)
    words = [" ".join(f"w{n}" for n in draw.integers(0, 3000, 40)) for _ in range(num_images)]
    write(schemas.CAPTIONS, ids, raw_caption=words, caption=words,
          image_embedding=list(vectors[0]), text_embedding=list(vectors[1]))  # fmt: skip
    for spec in (schemas.ENHANCED, schemas.ENHANCED_AGES, schemas.KEEP_LIST,
                 schemas.TRAINING_MANIFEST):  # fmt: skip
        write(spec, ids)
    names = ("images", "predictions", "labels", "keep_list", "enhanced", "enhanced_ages",
             "captions", "training_manifest")  # fmt: skip
    specs = {spec.name: spec for spec in vars(schemas).values()
             if isinstance(spec, schemas.TableSpec)}  # fmt: skip
    return {
        name: table_path(workspace, specs[name], partition).stat().st_size / num_images
        for name in names
    }


_CONSTANTS: dict[pl.DataType, object] = {pl.String(): "constant", pl.Int32(): 1}


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
