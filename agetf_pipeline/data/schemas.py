"""The data contract: the Arrow schema of every table, in one place.

Tables are Parquet (zstd), one file per table and partition, sorted by their key, written
atomically. A value that could not be computed is null, with the reason beside it. `image_id` is
the sha256 of the original file's bytes; paths are relative to the workspace root.
"""

from dataclasses import dataclass

import pyarrow as pa

NUM_AGE_BINS = 101
"""Ages 0, 1, ..., 100."""

LABEL_DECISIONS = ("keep", "relabel", "review", "drop", "none", "unlabelled")
"""Everything that may become of an image's label; `unlabelled`: too few experts answered."""


@dataclass(frozen=True)
class TableSpec:
    """What one table is: its columns, and the columns that identify a row."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    description: str


def _distribution() -> pa.DataType:
    # 101 numbers. Not a fixed-size list: Arrow writes a null in one as Parquet that it cannot read.
    return pa.list_(pa.float32())


def _field(name: str, kind: pa.DataType, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required)


IMAGES = TableSpec(
    "images",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("partition", pa.string(), required=True),
            _field("path", pa.string(), required=True),  # the original file
            _field("face_path", pa.string(), required=True),  # what the stages read
            _field("raw_name", pa.string(), required=True),  # file name, non-ASCII escaped
            _field("format", pa.string(), required=True),  # JPEG, PNG, WEBP
            _field("mode", pa.string(), required=True),  # Pillow mode as stored
            _field("stored_width_px", pa.int32(), required=True),  # before EXIF rotation
            _field("stored_height_px", pa.int32(), required=True),
            _field("width_px", pa.int32(), required=True),  # of the face image
            _field("height_px", pa.int32(), required=True),
            _field("num_bytes", pa.int64(), required=True),
            _field("is_grey", pa.bool_(), required=True),
            _field(
                "flags", pa.list_(pa.string()), required=True
            ),  # converted_cmyk, exif_rotated...
            # What the corpus itself says of the image; null where it says nothing.
            _field("image_number", pa.int32()),
            _field("subject", pa.string()),
            _field("true_age_years", pa.float32()),
            _field("age_group", pa.string()),
            _field("age_group_confidence", pa.float32()),
            _field("gender", pa.string()),
            _field("gender_confidence", pa.float32()),
            _field("head_pitch", pa.float32()),
            _field("head_roll", pa.float32()),
            _field("head_yaw", pa.float32()),
            _field("left_eye_occluded", pa.float32()),
            _field("right_eye_occluded", pa.float32()),
            _field("glasses", pa.string()),
        ]
    ),
    ("image_id",),
    "Every readable image: where it lies, what its file is, and what its corpus says of it.",
)

QUARANTINE = TableSpec(
    "quarantine",
    pa.schema(
        [
            _field("path", pa.string(), required=True),  # non-ASCII escaped
            _field("partition", pa.string(), required=True),
            _field("image_id", pa.string()),  # null where the bytes could not be read
            _field("reason", pa.string(), required=True),  # a word: truncated, too_many_pixels...
            _field("detail", pa.string(), required=True),  # a sentence for a person
            _field("num_bytes", pa.int64()),
            _field("duplicate_of", pa.string()),  # path of the file that was kept
        ]
    ),
    ("path",),
    "Every file that was not taken, with the reason. Input = images + quarantine.",
)

PREDICTIONS = TableSpec(
    "predictions",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("expert", pa.string(), required=True),  # janus, mivolo, resnet50, vgg16
            _field("model_version", pa.string(), required=True),
            _field("status", pa.string(), required=True),  # ok, failed
            _field("reason", pa.string()),  # of a failure
            _field("age_years", pa.float32()),
            _field("sigma_years", pa.float32()),
            _field("distribution", _distribution()),  # p(age), sums to 1; null for regressors
            _field("valid_mass", pa.float32()),  # Janus: p(the answer is a number 0-100)
        ]
    ),
    ("image_id", "expert"),
    "What each expert reads from each image, uncalibrated.",
)

LABELS = TableSpec(
    "labels",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("label_version", pa.string(), required=True),  # calibration + model versions
            _field("age_years", pa.float32()),  # null where under two experts answered
            _field("variance_years2", pa.float32()),  # within + between
            _field("within_variance_years2", pa.float32()),
            _field("between_variance_years2", pa.float32()),  # disagreement of the experts
            _field("interval_low_years", pa.float32()),  # conformal, at the configured level
            _field("interval_high_years", pa.float32()),
            _field("reliability", pa.float32()),  # 0..1: P(within five years)
            _field("num_experts", pa.int32(), required=True),
            # JSON: {expert: {age_years, sigma_years, confidence, weight, status, reason}}
            _field("experts", pa.string(), required=True),
            _field("original_age_group", pa.string()),
            _field("age_group", pa.string()),  # of age_years
            _field("decision", pa.string(), required=True),  # keep, relabel, review, drop...
            _field("reason", pa.string()),
            _field("calibrated", pa.bool_(), required=True),
        ]
    ),
    ("image_id",),
    "The mixture's label of each image, with its uncertainty and every expert's part in it.",
)

KEEP_LIST = TableSpec(
    "keep_list",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("keep", pa.bool_(), required=True),
            _field("reasons", pa.list_(pa.string()), required=True),  # empty where kept
            _field("label_age_years", pa.float32()),  # CAF: the manifest's age where given
            _field("label_variance_years2", pa.float32()),
            _field("age_group", pa.string()),
            _field("curriculum_weight", pa.float32()),  # (0, 1]; null where dropped
        ]
    ),
    ("image_id",),
    "Which images training may use, with every reason against those it may not.",
)

ENHANCED = TableSpec(
    "enhanced",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),  # of the original
            _field("status", pa.string(), required=True),  # ok, failed
            _field("reason", pa.string()),
            _field("enhanced_path", pa.string()),
            _field("enhanced_sha256", pa.string()),
            _field("sidecar_path", pa.string()),
            _field("colourised", pa.bool_()),
            _field("super_resolved", pa.bool_()),
            _field("decision", pa.string()),  # why, for a person
            _field("ddcolor_version", pa.string()),
            _field("esrgan_version", pa.string()),
            _field("settings_version", pa.string(), required=True),
            _field("input_width_px", pa.int32()),
            _field("input_height_px", pa.int32()),
            _field("output_width_px", pa.int32()),
            _field("output_height_px", pa.int32()),
            _field("colourfulness_before", pa.float32()),
            _field("colourfulness_after", pa.float32()),
            _field("sharpness_before", pa.float32()),
            _field("sharpness_after", pa.float32()),
        ]
    ),
    ("image_id",),
    "What enhancement did to each image of a shard, linked to the original and the output.",
)

ENHANCED_AGES = TableSpec(
    "enhanced_ages",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("enhanced_sha256", pa.string(), required=True),
            _field("label_version", pa.string(), required=True),
            _field("identity_version", pa.string()),  # null: no identity model is configured
            _field("guards_version", pa.string(), required=True),
            _field("age_before_years", pa.float32()),
            _field("age_after_years", pa.float32()),
            _field("age_shift_years", pa.float32()),
            _field("identity_similarity", pa.float32()),  # cosine
            _field("identity_alignment", pa.string()),  # eyes, window, whole
            _field("sharpness_ratio", pa.float32()),  # over the original at the same size
            _field("colourised", pa.bool_()),
            _field("colourfulness_change", pa.float32()),  # after - before
            _field("not_compared", pa.string()),  # what is null, and why
            _field("flags", pa.list_(pa.string()), required=True),  # guards that failed
            _field("flagged", pa.bool_(), required=True),  # any of them
            _field("reason", pa.string()),  # of the flags
        ]
    ),
    ("image_id",),
    "The guards after enhancement: age, identity, sharpness and colour, before and after.",
)

CAPTIONS = TableSpec(
    "captions",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("model_version", pa.string(), required=True),
            _field("prompt_hash", pa.string(), required=True),
            _field("prompt", pa.string(), required=True),
            _field("status", pa.string(), required=True),
            _field("reason", pa.string()),
            _field("raw_caption", pa.string()),
            _field("caption", pa.string()),  # age words removed
            _field("num_tokens", pa.int32()),  # of the raw caption
            _field("finished", pa.bool_()),  # false: it was cut at its greatest length
            # Of one width a model, but null where there is none: see docs/captions.md.
            _field("image_embedding", pa.list_(pa.float16())),
            _field("text_embedding", pa.list_(pa.float16())),
            _field("token_grid_path", pa.string()),
        ]
    ),
    ("image_id", "model_version", "prompt_hash"),
    "A caption of each image by each model and prompt, without words of age, and its embeddings.",
)

TRAINING_MANIFEST = TableSpec(
    "training_manifest",
    pa.schema(
        [
            _field("image_id", pa.string(), required=True),
            _field("partition", pa.string(), required=True),
            _field("split", pa.string(), required=True),  # train, val, test; by identity
            _field("identity", pa.string(), required=True),
            _field("face_path", pa.string(), required=True),
            _field("enhanced_path", pa.string()),  # null where there is none that may be used
            _field("age_years", pa.float32(), required=True),
            _field("variance_years2", pa.float32(), required=True),
            _field("age_group", pa.string(), required=True),
            _field("curriculum_weight", pa.float32(), required=True),
            _field("label_source", pa.string(), required=True),  # corpus, moe
            _field("has_caption", pa.bool_(), required=True),
        ]
    ),
    ("image_id",),
    "What training reads: one row an image, in one file for all partitions.",
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        IMAGES,
        QUARANTINE,
        PREDICTIONS,
        LABELS,
        KEEP_LIST,
        ENHANCED,
        ENHANCED_AGES,
        CAPTIONS,
        TRAINING_MANIFEST,
    )
}
