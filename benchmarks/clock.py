"""Time of the wall clock and of the processor, and the greatest memory of a piece of work."""

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Clock:
    """Seconds that a way of working took, and of how many items.

    Attributes:
        wall_s: Seconds of each piece of work.
        processor_s: The same, of the processor, over all threads of this process.
        num_items: Items of all pieces together.
    """

    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    num_items: int = 0

    def time(self, work: Callable[[], object], num_items: int) -> None:
        """Run `work`, which is of so many items."""
        wall_s, processor_s = time.perf_counter(), time.process_time()
        work()
        self.wall_s.append(time.perf_counter() - wall_s)
        self.processor_s.append(time.process_time() - processor_s)
        self.num_items += num_items

    @property
    def wall_each_s(self) -> float:
        """Seconds an item, by the wall clock."""
        return sum(self.wall_s) / self.num_items

    @property
    def processor_each_s(self) -> float:
        """Seconds an item, of the processor."""
        return sum(self.processor_s) / self.num_items


def in_turns(
    sides: Mapping[str, tuple[Callable[[], object], int]], num_rounds: int
) -> dict[str, Clock]:
    """Time several ways of working in turns, so that a machine whose load changes slows them all.

    Args:
        sides: By name: the work, and the items that it is of.
        num_rounds: How often each is run.

    Returns:
        A clock for each name.
    """
    clocks = {name: Clock() for name in sides}
    for _ in range(num_rounds):
        for name, (work, num_items) in sides.items():
            clocks[name].time(work, num_items)
    return clocks


@dataclass
class Peak:
    """Greatest resident memory of this process, MiB."""

    mib: float = 0.0


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the greatest resident memory of this process while the block runs.

    Linux keeps it for a process's whole life unless it is told to begin anew; where it cannot be
    told, it is that of the whole life.
    """
    peak = Peak()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    try:
        yield peak
    finally:
        peak.mib = peak_mib() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_mib(pid: int | str = "self") -> float:
    """Return the greatest resident memory of a process, MiB; 0 where it is gone or not told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def measured_apart(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark's module in a process of its own; return the JSON of its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
