"""Time of the wall clock and of the processor, and the greatest memory of a piece of work."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
    """Greatest resident memory of this process, MiB; None where the system does not tell."""

    mib: float | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the greatest resident memory of this process while the block runs.

    Linux keeps it for a process's whole life unless it is told to begin anew.
    """
    peak = Peak()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    try:
        yield peak
    finally:
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak.mib = int(line.split()[1]) / 1024
