"""How long a person waits before anything begins: the command line, the library, the location.

Each is the shortest of several starts of a process: other work of the machine can only lengthen it.
The floor beside it is what the same interpreter takes to start, or to import Dagster alone.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row

_REPOSITORY = Path(__file__).resolve().parents[1]
_STARTS = 5
_WITHOUT_TORCH = (
    "import agetf_pipeline.stages, agetf_pipeline.config, sys; assert 'torch' not in sys.modules"
)
_LOCATION = "import definitions; definitions.defs.get_repository_def()"


def rows() -> Iterator[Row]:
    """Yield a row for each start, with the most that it may take."""
    python = [sys.executable]
    agetf = [str(Path(sys.executable).with_name("agetf"))]
    floor = _start([*python, "-c", "pass"])
    for stage, command, most_s, below, below_s in (
        ("`agetf --help`", [*agetf, "--help"], 0.3, "an empty Python program", floor),
        (
            "import of the library, without torch", [*python, "-c", _WITHOUT_TORCH], 0.5,
            "an empty Python program", floor,
        ),
        (
            "the code location", [*python, "-c", _LOCATION], 5.0, "importing Dagster alone",
            _start([*python, "-c", "import dagster"]),
        ),
    ):  # fmt: skip
        took_s = _start(command)
        yield Row(
            stage, "starts", took_s, ceiling=below, ceiling_s=below_s, holds=took_s[0] < most_s,
            note=f"{took_s[0]:.2f} s; under {most_s:g} s is wanted.",
        )  # fmt: skip


def _start(command: list[str]) -> tuple[float, float]:
    """Return the shortest time of a process, by the wall clock and of the processor."""
    walls, processors = [], []
    for _ in range(_STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started_s = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd=_REPOSITORY, **quiet)
        walls.append(time.perf_counter() - started_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        processors.append(used_s)
    return min(walls), min(processors)


if __name__ == "__main__":
    for found in rows():
        print(found)
