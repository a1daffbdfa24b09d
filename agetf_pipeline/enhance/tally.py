"""What a report says of an enhanced shard, gathered from its table a slice at a time."""

from dataclasses import dataclass, field

import polars as pl

from agetf_pipeline.data.schemas import ENHANCED
from agetf_pipeline.data.tables import empty_frame

_MAX_REASONS = 3
_MAX_OF_A_KIND = 24
"""Rows of each kind of change that a contact sheet may want to show."""
_TOUCHED = pl.col("colourised") | pl.col("super_resolved")
_MEASURES = tuple(
    f"{name}_{when}" for name in ("colourfulness", "sharpness") for when in ("before", "after")
)


@dataclass
class Tally:
    """Counts of rows of the table `enhanced`, added slice by slice in the table's order.

    Attributes:
        image_ids: Of the rows that are good.
        shown: The first good rows of each kind of change: those that a contact sheet may show.
        num_rows: All.
        num_failed: Of them.
    """

    image_ids: set[str] = field(default_factory=set)
    shown: pl.DataFrame = field(default_factory=lambda: empty_frame(ENHANCED))
    num_rows: int = 0
    num_failed: int = 0
    _failures: list[dict] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, rows: pl.DataFrame) -> None:
        """Count a slice."""
        good = rows.filter(pl.col("status") == "ok")
        failed = rows.filter(pl.col("status") == "failed")
        self.image_ids.update(good["image_id"])
        self.num_rows += rows.height
        self.num_failed += failed.height
        missing = _MAX_REASONS - len(self._failures)
        self._failures += failed.select("image_id", "reason").head(missing).to_dicts()
        touched = good.filter(_TOUCHED)
        for name, count in {
            "num_colourised": good.filter("colourised").height,
            "num_super_resolved": good.filter("super_resolved").height,
            "num_passed_through": good.height - touched.height,
        }.items():
            self._counts[name] = self._counts.get(name, 0) + count
        for name in _MEASURES:
            total = float(touched[name].cast(pl.Float64).sum())
            self._sums[name] = self._sums.get(name, 0.0) + total
        shown = pl.concat([self.shown, good])
        turn = pl.int_range(pl.len()).over("colourised", "super_resolved")
        self.shown = shown.filter(turn < _MAX_OF_A_KIND)

    @property
    def num_good(self) -> int:
        """Rows with a picture."""
        return len(self.image_ids)

    @property
    def counts(self) -> dict[str, int]:
        """For the stage's report."""
        names = ("num_colourised", "num_super_resolved", "num_passed_through")
        found = {name: self._counts.get(name, 0) for name in names}
        return {"num_images": self.num_rows, **found, "num_failed": self.num_rows - self.num_good}

    @property
    def means(self) -> dict[str, float | None]:
        """Means over the changed pictures; None where there is none."""
        number = self.num_good - self._counts.get("num_passed_through", 0)
        return {
            f"mean_{name}_of_changed": round(self._sums[name] / number, 4) if number else None
            for name in _MEASURES
        }

    def explain_failures(self) -> list[str]:
        """Return sentences: why the first ones failed, and how many more did."""
        messages = [
            f"image {row['image_id'][:12]} was not enhanced: {row['reason']}"
            for row in self._failures
        ]
        if self.num_failed > _MAX_REASONS:
            messages.append(
                f"{self.num_failed - _MAX_REASONS} more failed; see the table 'enhanced'"
            )
        return messages
