"""What the children of the kill tests run; imported by the server that they are forked from."""

import os
import signal
from pathlib import Path

from enhanced_shard import PARTITION, make_config

from agetf_pipeline.core import files
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.enhance import apply, colour, outputs  # noqa: F401 - loaded before the forks
from agetf_pipeline.enhance.esrgan import build_esrgan
from agetf_pipeline.stages import enhance

# Loads basicsr, which takes longer than the work that is to be killed.
build_esrgan("srvgg", "tiny", 2)


def run_stage(root: Path) -> None:
    enhance.run(make_config(), Workspace(root), PARTITION)


def die_inside_a_write(root: Path, suffix: str, number: int) -> None:
    """Run the stage; die with half of the n-th picture or sidecar on the disk."""
    atomic_path, seen = files.atomic_path, 0

    def dying(path: Path):
        nonlocal seen
        seen += path.suffix == suffix
        if path.suffix == suffix and seen == number:
            half = path.with_name(f".tmp-half{suffix}")
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        return atomic_path(path)

    files.atomic_path = dying
    run_stage(root)


def die_between_picture_and_sidecar(root: Path, number: int) -> None:
    """Run the stage; die when the n-th sidecar is due, its picture in place."""
    write_sidecar, seen = outputs.write_sidecar, 0

    def dying(path: Path, content) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            assert path.with_suffix(".png").exists()
            os.kill(os.getpid(), signal.SIGKILL)
        write_sidecar(path, content)

    outputs.write_sidecar = dying
    run_stage(root)
