"""A workspace with a training manifest of eight faces, and settings that train on it in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.schemas import CAPTIONS, TRAINING_MANIFEST
from agetf_pipeline.data.tables import ALL_PARTITIONS, to_frame, write_table


def make_config(**changes) -> PipelineConfig:
    values = {
        "synthesize": {"enabled": True},
        "runtime": {"device": "cpu", "num_threads": 1},
        "distill": {"num_steps": 2, "batch_size": 4, "width": 8},
        "train": {
            "run_name": "tiny", "model": "tiny-64", "num_images": 8, "batch_size": 2,
            "ages_per_image": 2, "log_every_images": 4, "num_sample_faces": 2, **changes,
        },
    }  # fmt: skip
    return PipelineConfig.model_validate(values)


def make_workspace(root: Path) -> Workspace:
    """Return three people of the training split, one of validation, two photographs each."""
    workspace = Workspace(root)
    rng = np.random.default_rng(0)
    rows, captions = [], []
    (root / "faces").mkdir(parents=True)
    for index in range(8):
        face = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(face).save(root / "faces" / f"{index}.png")
        age = 10.0 + 9 * index
        rows.append(
            {
                "image_id": f"{index:064x}",
                "partition": "caf/shard-0000",
                "split": "val" if index >= 6 else "train",
                "identity": f"caf:{index // 2}",
                "face_path": f"faces/{index}.png",
                "enhanced_path": None,
                "age_years": age,
                "variance_years2": 1.0,
                "age_group": group_of(age),
                "curriculum_weight": 1.0,
                "label_source": "corpus",
                "has_caption": index != 0,
            }
        )
        embedding = None if index == 0 else rng.normal(size=5).astype(np.float16).tolist()
        row = dict.fromkeys(CAPTIONS.schema.names)
        row |= {"image_id": f"{index:064x}", "model_version": "v", "prompt_hash": "p"}
        row |= {"prompt": "?", "status": "ok", "raw_caption": "a face", "caption": "a face"}
        row |= {"image_embedding": embedding, "text_embedding": embedding if index < 4 else None}
        captions.append(row)
    write_table(workspace, TRAINING_MANIFEST, ALL_PARTITIONS, to_frame(rows, TRAINING_MANIFEST))
    write_table(workspace, CAPTIONS, "caf/shard-0000", to_frame(captions, CAPTIONS))
    record_version(workspace, CaptionVersion("v", "p"), Request("?", 8))
    return workspace
