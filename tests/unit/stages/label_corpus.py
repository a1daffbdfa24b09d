"""A small corpus as tables: what ingest and predict would have written, with simulated experts."""

import hashlib

import numpy as np
import polars as pl

from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.tables import to_frame, write_table

NAMES = ("janus", "mivolo", "resnet50", "vgg16")
NOISE_YEARS = (4.0, 5.0, 6.0, 7.0)
BIAS = ((0.8, 6.0), (1.1, -4.0), (1.0, 5.0), (0.7, 10.0))  # slope, shift
OVERCONFIDENCE = (0.5, 1.5, 1.0, 2.0)  # what they say of their noise


def image_rows(partition, true_ages, rng, subjects=None, known=True, offset=0):
    rows = []
    for n, age in enumerate(true_ages):
        name = f"{partition}/{n + offset:05d}.png"
        caf = subjects is not None
        rows.append(
            {
                "image_id": hashlib.sha256(name.encode()).hexdigest(),
                "partition": partition,
                "path": f"data/raw/{name}",
                "face_path": f"data/raw/{name}",
                "raw_name": f"{n + offset:05d}.png",
                "format": "PNG",
                "mode": "RGB",
                "stored_width_px": 64,
                "stored_height_px": 64,
                "width_px": 64,
                "height_px": 64,
                "num_bytes": 1000,
                "is_grey": False,
                "flags": [],
                "image_number": None if caf else n + offset,
                "subject": subjects[n] if caf else None,
                "true_age_years": float(age) if caf and known else None,
                "age_group": None if caf else group_of(max(0.0, age + rng.normal(0, 4))),
                "age_group_confidence": None if caf else 0.9,
                "gender": None,
                "gender_confidence": None,
                "head_pitch": None if caf else float(rng.normal(0, 15)),
                "head_roll": None,
                "head_yaw": None if caf else float(rng.normal(0, 15)),
                "left_eye_occluded": None,
                "right_eye_occluded": None,
                "glasses": None if caf else str(rng.choice(["None", "Normal", "Dark"])),
            }
        )
    return rows


def prediction_rows(image_ids, true_ages, rng, version="v1", missing=0.04):
    rows = []
    shared = rng.normal(0, 1.5, len(true_ages))
    for e, name in enumerate(NAMES):
        slope, shift = BIAS[e]
        for n, (image_id, age) in enumerate(zip(image_ids, true_ages, strict=True)):
            noise = NOISE_YEARS[e] * np.exp(rng.normal(0, 0.4))
            said = np.clip(slope * age + shift + shared[n] + rng.normal(0, noise), 0, 100)
            failed = rng.random() < missing
            rows.append(
                {
                    "image_id": image_id,
                    "expert": name,
                    "model_version": f"{name}-{version}",
                    "status": "failed" if failed else "ok",
                    "reason": "no face" if failed else None,
                    "age_years": None if failed else float(said),
                    "sigma_years": None if failed else float(noise * OVERCONFIDENCE[e]),
                    "distribution": None if failed else np.full(101, 1 / 101).tolist(),
                    "valid_mass": None,
                }
            )
    return rows


def write_corpus(workspace, num_ffhq=300, num_subjects=200, num_ages=5, seed=0):
    """Write images and predictions of FFHQ-Aging and two CAF shards; return {image_id: age}."""
    rng = np.random.default_rng(seed)
    truth = {}
    ages = rng.uniform(0, 90, num_ffhq)
    _write(workspace, "ffhq_aging", image_rows("ffhq_aging", ages, rng), ages, rng, truth)
    for shard in range(2):
        ages = rng.uniform(0, 90, num_subjects * num_ages // 2)
        subjects = [f"s{shard}-{n // num_ages:03d}" for n in range(len(ages))]
        partition = f"caf/shard-{shard}"
        rows = image_rows(partition, ages, rng, subjects)
        _write(workspace, partition, rows, ages, rng, truth)
    return truth


def _write(workspace, partition, rows, ages, rng, truth):
    if not rows:
        return
    ids = [row["image_id"] for row in rows]
    write_table(workspace, IMAGES, partition, to_frame(rows, IMAGES))
    predictions = prediction_rows(ids, ages, rng)
    write_table(workspace, PREDICTIONS, partition, to_frame(predictions, PREDICTIONS))
    truth |= dict(zip(ids, ages.tolist(), strict=True))


def with_truth(frame, truth):
    """Add the true age of each image to a frame with `image_id`."""
    values = [truth[image_id] for image_id in frame["image_id"].to_list()]
    return frame.with_columns(truth=pl.Series(values))
