"""What the children of the caption kill test run; imported by the server they are forked from."""

import os
import signal
from pathlib import Path

import numpy as np
from captioned_shard import PARTITION, make_config

from agetf_pipeline.captions import cache, captioner
from agetf_pipeline.core import files
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import streaming, tables
from agetf_pipeline.experts import janus_tiny  # noqa: F401 - loaded before the forks
from agetf_pipeline.stages import caption

CALLS = "calls.txt"


def run_stage(root: Path) -> None:
    """Run the stage; every image that the network is given is a line in a file."""
    _count_calls(root)
    caption.run(make_config(), Workspace(root), PARTITION)


def die_after_a_call(root: Path, number: int) -> None:
    """Run the stage; die when the network has answered for the n-th time."""
    _count_calls(root)
    caption_faces, seen = captioner.caption_faces, 0

    def dying(*arguments):
        nonlocal seen
        captions, seen = caption_faces(*arguments), seen + 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return captions

    captioner.caption_faces = dying
    caption.run(make_config(), Workspace(root), PARTITION)


def die_inside_a_write(root: Path, folder: str, number: int) -> None:
    """Run the stage; die with half of the n-th file below `folder` on the disk."""
    atomic_path, seen = files.atomic_path, 0

    def dying(path: Path):
        nonlocal seen
        seen += folder in path.parts
        if folder in path.parts and seen == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".tmp-half{path.suffix}").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        return atomic_path(path)

    for module in (files, tables, streaming, cache):
        module.atomic_path = dying  # type: ignore[attr-defined]
    run_stage(root)


def _count_calls(root: Path) -> None:
    caption_faces = captioner.caption_faces

    def counting(janus, faces_BHWC: np.ndarray, image_ids, *arguments):
        with (root / CALLS).open("a") as stream:
            stream.writelines(f"{image_id}\n" for image_id in image_ids)
        return caption_faces(janus, faces_BHWC, image_ids, *arguments)

    captioner.caption_faces = counting
