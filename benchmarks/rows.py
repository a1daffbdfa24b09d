"""One line of the table of `make bench`: a stage beside its peer and beside its ceiling."""

import dataclasses
import os
from dataclasses import dataclass
from importlib import metadata

from benchmarks.clock import Clock
from benchmarks.processor import bf16_flags, cpu_name

LEAST_SHARE = 0.9
"""Of its ceiling, that a stage is to reach."""


@dataclass(frozen=True)
class Row:
    """What one stage costs, beside what it could cost.

    Attributes:
        stage: What is measured, as a person would call it.
        unit: Of what the rates are: `images`, `faces x 10 ages`, `rows`...
        ours_s: Seconds an item: by the wall clock, and of the processor.
        peer: The official way of doing the same with the same weights; None where there is none.
        peer_s: As `ours_s`.
        ceiling: What bounds it: the bare network on tensors, decoding alone, the disk; None where
            nothing meaningful does.
        ceiling_s: As `ours_s`.
        wanted_times: How many times as fast as the peer it is to be; None: nothing is claimed.
        wanted_share: Of the ceiling.
        peak_mib: Greatest resident memory of the process while ours ran.
        holds: Where a row is about something other than rates: whether it is as wanted.
        note: What a reader must know to read the figures: precision, sizes, what is stood in for.
    """

    stage: str
    unit: str
    ours_s: tuple[float, float] | None = None
    peer: str | None = None
    peer_s: tuple[float, float] | None = None
    ceiling: str | None = None
    ceiling_s: tuple[float, float] | None = None
    wanted_times: float | None = None
    wanted_share: float | None = None
    peak_mib: float | None = None
    holds: bool | None = None
    note: str = ""

    @property
    def times(self) -> tuple[float, float] | None:
        """How many times as fast as the peer: by the wall clock, and of the processor."""
        return _ratio(self.peer_s, self.ours_s)

    @property
    def share(self) -> tuple[float, float] | None:
        """Of the ceiling: by the wall clock, and of the processor."""
        return _ratio(self.ceiling_s, self.ours_s)

    @property
    def verdict(self) -> bool | None:
        """Whether everything that is wanted holds, by the wall clock; None: nothing is wanted."""
        verdicts = [] if self.holds is None else [self.holds]
        if self.wanted_times is not None:
            verdicts.append(self.times is not None and self.times[0] >= self.wanted_times)
        if self.wanted_share is not None:
            verdicts.append(self.share is not None and self.share[0] >= self.wanted_share)
        return all(verdicts) if verdicts else None


def seconds_of(clock: Clock) -> tuple[float, float]:
    """Return seconds an item, by the wall clock and of the processor."""
    return clock.wall_each_s, clock.processor_each_s


def _ratio(
    above: tuple[float, float] | None, below: tuple[float, float] | None
) -> tuple[float, float] | None:
    if above is None or below is None:
        return None
    return above[0] / below[0], above[1] / below[1]


_HEADER = (
    "stage", "ours", "peer", "times as fast (processor)", "ceiling", "of the ceiling (processor)",
    "peak MiB", "as wanted",
)  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, with their notes below it."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    notes: list[str] = []
    for row in rows:
        stage = row.stage
        if row.note:
            notes.append(row.note)
            stage += f" [{len(notes)}]"
        lines.append(
            _line([
                stage,
                _rate(row.ours_s, row.unit),
                f"{_rate(row.peer_s, row.unit)}, {row.peer}" if row.peer else "",
                _pair(row.times, "{:.2f}", row.wanted_times, "{:g}"),
                f"{_rate(row.ceiling_s, row.unit)}, {row.ceiling}" if row.ceiling else "",
                _pair(row.share, "{:.0%}", row.wanted_share, "{:.0%}"),
                "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
                {None: "", True: "yes", False: "**no**"}[row.verdict],
            ])
        )  # fmt: skip
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))]
    return "\n".join(lines).rstrip()


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rate(seconds: tuple[float, float] | None, unit: str) -> str:
    if seconds is None:
        return ""
    rate = 1 / seconds[0]
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.3g} {unit}/s"


def _pair(
    found: tuple[float, float] | None, form: str, wanted: float | None, wanted_form: str
) -> str:
    if found is None:
        return ""
    text = f"{form.format(found[0])} ({form.format(found[1])})"
    return text if wanted is None else f"{text}, wanted {wanted_form.format(wanted)}"


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    return {
        "cpu": cpu_name(),
        "cores": str(len(os.sched_getaffinity(0))),
        "bf16": ", ".join(bf16_flags()) or "no bf16 instructions",
        **{name: metadata.version(name) for name in ("torch", "polars", "pyarrow", "Pillow")},
    }


def to_json(rows: list[Row]) -> list[dict]:
    """Return rows as they are stored."""
    return [dataclasses.asdict(row) for row in rows]


def from_json(stored: list[dict]) -> list[Row]:
    """Return stored rows; the inverse of `to_json`."""
    pairs = ("ours_s", "peer_s", "ceiling_s")
    return [
        Row(**{k: tuple(v) if k in pairs and v is not None else v for k, v in row.items()})
        for row in stored
    ]
