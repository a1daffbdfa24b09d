"""Tables of any number of images, written a slice at a time: what the early stages would leave.

Images, predictions and labels are drawn from a seed and mean nothing; what they cost to read, join
and write is that of real ones: ids are 64 hexadecimal digits in order, JSON of four experts stands
beside every label. Rows may point to a few small files again and again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.schemas import IMAGES, LABELS, TableSpec
from agetf_pipeline.data.streaming import open_table
from agetf_pipeline.data.tables import empty_frame, table_path

SLICE = 65_536
EXPERTS = ("janus", "mivolo", "resnet50", "vgg16")
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def image_ids(start: int, num_rows: int, num_images: int, seed: int) -> pl.Series:
    """Return ids of rows `start` and on, in order: a place in the order, then random digits."""
    row = np.arange(start, start + num_rows, dtype=np.uint64)
    place = ((row << np.uint64(32)) // np.uint64(num_images)).astype(">u4")
    words = np.stack(
        [_mixed(row * np.uint64(4) + np.uint64(k + seed * 2**33)) for k in range(4)], 1
    )
    raw = np.concatenate([place.view(np.uint8).reshape(-1, 4), words.view(np.uint8)[:, 4:]], axis=1)
    digits = np.empty((num_rows, 64), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[raw >> 4], _HEX[raw & 15]
    return pl.Series(digits.view("S64").ravel()).cast(pl.String)


def _mixed(number: np.ndarray) -> np.ndarray:
    """Return numbers that look random, uint64 (N,), the same for the same ones (SplitMix64)."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


def write_images(
    workspace: Workspace,
    partition: str,
    num_images: int,
    paths: Sequence[str] = ("data/raw/x.jpg",),
    seed: int = 0,
    size_px: int = 64,
) -> None:
    """Write a partition's table `images`; image n lies in file n of `paths`, counted in a ring.

    Images of a shard are of subjects of known age, five each; those of FFHQ-Aging have groups.
    """
    caf = partition.startswith("caf/")
    constants = {
        "partition": partition, "format": "JPEG", "mode": "RGB", "num_bytes": 1, "is_grey": False,
        "stored_width_px": size_px, "stored_height_px": size_px, "width_px": size_px,
        "height_px": size_px,
    }  # fmt: skip
    with open_table(table_path(workspace, IMAGES, partition), IMAGES) as writer:
        for start, number in _slices(num_images):
            draw = np.random.default_rng((seed, 1, start))
            place = pl.Series(np.arange(start, start + number))
            path = pl.Series([paths[n % len(paths)] for n in range(start, start + number)])
            columns: dict[str, object] = {
                "image_id": image_ids(start, number, num_images, seed),
                "path": path, "face_path": path, "raw_name": path,
                "image_number": None if caf else place.cast(pl.Int32),
                "subject": f"s{seed}-" + (place // 5).cast(pl.String) if caf else None,
                "true_age_years": draw.uniform(0, 90, number).astype(np.float32) if caf else None,
                "age_group": None if caf else np.array(AGE_GROUPS)[draw.integers(0, 10, number)],
                "age_group_confidence": None if caf else draw.uniform(0.5, 1, number),
                "head_pitch": draw.normal(0, 15, number), "head_yaw": draw.normal(0, 20, number),
                "left_eye_occluded": draw.uniform(0, 60, number),
                "right_eye_occluded": draw.uniform(0, 60, number),
                "glasses": np.array(["None", "Normal", "Dark"])[draw.integers(0, 3, number)],
            }  # fmt: skip
            writer.write(_frame(IMAGES, number, columns, constants))


def write_labels(workspace: Workspace, partition: str, num_images: int, seed: int = 0) -> None:
    """Write a partition's table `labels`, one a row of `write_images` of the same seed."""
    with open_table(table_path(workspace, LABELS, partition), LABELS) as writer:
        for start, number in _slices(num_images):
            draw = np.random.default_rng((seed, 3, start))
            age = draw.uniform(0, 95, number).round(2)
            within, between = draw.uniform(4, 60, number), draw.uniform(0, 40, number)
            sigma = np.sqrt(within + between)
            group = np.array(AGE_GROUPS)
            columns: dict[str, object] = {
                "image_id": image_ids(start, number, num_images, seed),
                "age_years": age, "variance_years2": within + between,
                "within_variance_years2": within, "between_variance_years2": between,
                "interval_low_years": np.maximum(0, age - 1.6 * sigma),
                "interval_high_years": age + 1.6 * sigma,
                "reliability": draw.uniform(0, 1, number),
                "experts": _experts(age),
                "original_age_group": group[draw.integers(0, 10, number)],
                "age_group": group[draw.integers(0, 10, number)],
                "decision": np.array(["keep", "relabel", "review", "drop"])[
                    draw.choice(4, number, p=[0.6, 0.2, 0.15, 0.05])
                ],
            }  # fmt: skip
            constants = {"label_version": "v1", "num_experts": 4, "calibrated": True}
            writer.write(_frame(LABELS, number, columns, constants))


def _experts(age: np.ndarray) -> pl.Series:
    """Return JSON of every expert's part, as long as that of real labels."""
    part = (
        '"{name}": {{"age_years": {{0}}, "confidence": -1.4219, "raw_age_years": {{0}}, '
        '"raw_sigma_years": 4.1452, "reason": null, "sigma_years": 4.1452, "status": "ok", '
        '"weight": 0.2512}}'
    )
    text = "{{" + ", ".join(part.format(name=name) for name in EXPERTS) + "}}"
    spelled = pl.Series(age).cast(pl.String)
    pieces = text.replace("{{", "{").replace("}}", "}").split("{0}")
    frame = pl.DataFrame({"age": spelled})
    parts = [item for piece in pieces for item in (pl.lit(piece), pl.col("age"))][:-1]
    return frame.select(pl.concat_str(parts)).to_series()


def _slices(num_images: int, size: int = 0) -> Iterator[tuple[int, int]]:
    size = size or SLICE
    for start in range(0, num_images, size):
        yield start, min(size, num_images - start)


def _frame(
    spec: TableSpec, num_rows: int, columns: dict[str, object], constants: dict[str, object]
) -> pl.DataFrame:
    """Return rows of a table: columns, constants, and nulls for what is left."""
    schema = empty_frame(spec).schema
    given = {name: value for name, value in columns.items() if value is not None}
    frame = pl.DataFrame(given)
    rest = {name: pl.lit(constants.get(name)) for name in schema if name not in given}
    if "flags" in rest:
        rest["flags"] = pl.lit([], dtype=pl.List(pl.String))
    assert frame.height == num_rows
    return frame.with_columns(**rest).select(list(schema)).cast(schema)


def write_faces(folder: Path, num_files: int, size_px: int, suffix: str = "jpg") -> list[Path]:
    """Draw small synthetic faces; return their files."""
    from PIL import Image

    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.{suffix}" for index in range(num_files)]
    for index, file in enumerate(files):
        drawn = draw_face(draw_identity(index % 16), float(index % 90), min(size_px, 128))
        Image.fromarray(drawn).resize((size_px, size_px)).save(file, quality=95)
    return files
