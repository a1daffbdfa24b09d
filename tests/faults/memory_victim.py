"""Reads faces, and enlarges a picture, in a process whose address space is really too small."""

import json
import logging
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from agetf_pipeline.core.batches import watching
from agetf_pipeline.enhance.esrgan import SuperResolver
from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.predict import read_faces

_MIB = 2**20
SIZE = 128


class Wide(nn.Module):
    """101 logits by way of maps of 4 MiB a face."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 64, 3, padding=1)
        self.read = nn.Linear(64, 101)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.read(self.widen(x_NCHW).mean(dim=(2, 3)))


def leave_room(num_mib: int) -> None:
    """Let this process have so much more address space than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + num_mib * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def read(batch_size: int, room_mib: int | None) -> list[float]:
    """Read 64 faces; return the ages."""
    torch.manual_seed(0)
    expert = ClassifierExpert("vgg16", Wide(), SIZE, "imagenet", "v", "synthetic")
    faces = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), np.uint8)
    expert.read(faces[:1])  # what is loaded at the first use is there
    if room_mib is not None:
        leave_room(room_mib)
    rows = read_faces([expert], faces, [f"{i:03d}" for i in range(64)], batch_size)
    assert rows["status"].to_list() == ["ok"] * 64, rows["reason"].unique().to_list()
    return rows.sort("image_id")["age_years"].to_list()


def enlarge(batch_size: int, room_mib: int | None) -> list[float]:
    """Enlarge a picture by its tiles; return its pixels' sum by row."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 12, 3, padding=1))
    network.append(nn.PixelShuffle(2))
    resolver = SuperResolver(network.eval(), 2, 4, 1, "v")
    rgb = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)
    resolver(rgb[:, :64, :64], SIZE, 1)
    if room_mib is not None:
        leave_room(room_mib)
    return resolver(rgb, SIZE, batch_size)[0].sum(axis=(1, 2), dtype=np.int64).tolist()


def main() -> None:
    """Print the results of a small batch, then those of a large one in little memory."""
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    work = {"read": read, "enlarge": enlarge}[sys.argv[1]]
    expected = work(2, None)
    with watching(sys.argv[1]) as shortages:
        found = work(int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps({"expected": expected, "found": found, "said": shortages()}))


if __name__ == "__main__":
    main()
