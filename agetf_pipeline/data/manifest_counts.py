"""Counts of the training manifest per split and age group, gathered a slice of rows at a time."""

from collections import Counter, defaultdict

import polars as pl

from agetf_pipeline.data.ages import AGE_GROUPS

ALL = "all"
_SPLITS = ("train", "val", "test")
_DECIMALS = 3


class ManifestCounts:
    """What a manifest holds. Of its persons, a number each is held; of its images, nothing."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.num_images = 0
        self.num_enhanced = 0
        self.num_captioned = 0
        self.num_corpus_ages = 0
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._sums: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self._persons: list[pl.DataFrame] = []
        self._num_merged = 0

    def add(self, manifest: pl.DataFrame, of_its_own: pl.Series) -> None:
        """Count rows of the manifest; none may come twice.

        Args:
            manifest: The rows.
            of_its_own: bool, whether a row's identity is the image itself, and so occurs once.
        """
        self.num_images += manifest.height
        rows = manifest.select(
            "split", "age_group", "identity",
            weight=pl.col("curriculum_weight").cast(pl.Float64),
            enhanced=pl.col("enhanced_path").is_not_null(),
            captioned="has_caption",
            corpus=pl.col("label_source") == "corpus",
            alone=of_its_own,
        )  # fmt: skip
        self.num_enhanced += int(rows["enhanced"].sum())
        self.num_captioned += int(rows["captioned"].sum())
        self.num_corpus_ages += int(rows["corpus"].sum())
        for whole in (rows, rows.with_columns(age_group=pl.lit(ALL))):
            for (split, group), its in whole.group_by("split", "age_group"):
                place = (str(split), str(group))
                weights = its["weight"].to_numpy()
                self._sums[*place, "weights"] += float(weights.sum())
                self._sums[*place, "squares"] += float((weights**2).sum())
                self._counts[*place, "images"] += its.height
                for name in ("enhanced", "captioned", "corpus", "alone"):
                    self._counts[*place, name] += int(its[name].sum())
        self._remember(rows.filter(~pl.col("alone")))

    def _remember(self, rows: pl.DataFrame) -> None:
        """Hold the persons of the rows, each once a split and age group."""
        found = rows.select("split", "age_group", person=pl.col("identity").hash())
        if not found.height:
            return
        self._persons.append(found.with_columns(pl.col("split", "age_group").cast(pl.Categorical)))
        # Merged when as many came as were held: each is then sorted out a few times only.
        if sum(frame.height for frame in self._persons) > 2 * max(self._num_merged, 65_536):
            self._persons = [pl.concat(self._persons).unique()]
            self._num_merged = self._persons[0].height

    def _num_persons(self) -> dict[tuple[str, str], int]:
        if not self._persons:
            return {}
        every = pl.concat(self._persons).unique().cast({"split": pl.String, "age_group": pl.String})
        counted = every.group_by("split", "age_group").agg(pl.len())
        whole = every.group_by("split").agg(pl.col("person").n_unique())
        found = {(split, group): count for split, group, count in counted.iter_rows()}
        return found | {(split, ALL): count for split, count in whole.iter_rows()}

    def num_of(self, split: str) -> int:
        """Return the images of a split."""
        return self._counts[split, ALL, "images"]

    def table(self) -> pl.DataFrame:
        """Return images, identities and effective number per split and age group, and over `all`.

        The effective number is (sum w)^2 / sum w^2 of the curriculum weights (Kish 1965): how many
        equally sure images the group is worth.
        """
        persons = self._num_persons()
        present = {split for split, _, name in self._counts if name == "images"}
        rows = []
        for split in [*_SPLITS, *sorted(present - set(_SPLITS))]:
            for group in (*AGE_GROUPS, ALL):
                count = {
                    name: self._counts[split, group, name]
                    for name in ("images", "enhanced", "captioned", "corpus", "alone")
                }
                squares = self._sums[split, group, "squares"]
                effective = (
                    self._sums[split, group, "weights"] ** 2 / squares if squares > 0 else 0.0
                )
                rows.append(
                    {
                        "split": split,
                        "age_group": group,
                        "num_images": count["images"],
                        "num_identities": count["alone"] + persons.get((split, group), 0),
                        "effective_num_images": round(effective, _DECIMALS),
                        "num_enhanced": count["enhanced"],
                        "num_captioned": count["captioned"],
                        "num_corpus_ages": count["corpus"],
                    }
                )
        return pl.DataFrame(rows)
