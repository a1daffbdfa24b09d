"""CAF shards of one or two small pictures each, for tests that need many."""

from pathlib import Path

import numpy as np
from PIL import Image

from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[1]


def write_shard(workspace: Workspace, name: str, seed: int, num_images: int = 1) -> Path:
    """Write a shard of pictures that no other seed has."""
    folder = workspace.raw_caf / name
    folder.mkdir(parents=True)
    rows = ["path,subject,age"]
    for number in range(num_images):
        noise = np.random.default_rng([seed, number]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
        rows.append(f"{number}.png,{name}-{number},{20 + (seed + number) % 50}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_config(folder: Path, root: Path, more: str = "") -> Path:
    """Write a config over real files (no synthetic corpus) in another workspace."""
    path = folder / "config" / "shards.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"extends: {REPOSITORY / 'configs' / 'test.yaml'}\nworkspace: {{root: {root}}}\n"
        f"synthesize: {{enabled: false}}\n{more}"
    )
    return path
