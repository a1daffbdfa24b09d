"""How good a partition's captions are, of one version: counts, shares, norms, and what is odd.

Words are read without embeddings, embeddings a row group at a time: memory holds the words of a
version and some 64 bytes an image, whatever the width of the network.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import polars as pl

from agetf_pipeline.captions.cache import of_version, read_captions
from agetf_pipeline.captions.flags import is_changed, is_usable, word_flags
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import table_path

KINDS = ("image", "text")
_DIGEST_BYTES = 16

_READ = (
    "image_id", "model_version", "prompt_hash", "prompt", "status", "reason", "raw_caption",
    "caption", "num_tokens", "finished",
)  # fmt: skip
# What a person can do about captions of which too many have a flag.
_ADVICE = {
    "empty": "the network wrote nothing: train or supply a better Janus, or change caption.prompt",
    "wordless": "the prompt asks for little but the age: change caption.prompt",
    "short": "change caption.prompt, or lower caption.checks.min_words",
    "long": "lower caption.max_new_tokens, or raise caption.checks.max_words",
    "cut": "raise caption.max_new_tokens",
    "not_english": "ask for English in caption.prompt",
    "repeated": "the network hardly looks at the image: train or supply a better Janus",
}
_SAYS = {
    "empty": "are empty",
    "wordless": "were words of age and nothing else",
    "short": "are too short",
    "long": "are too long",
    "cut": "were cut before their end",
    "not_english": "do not look like English",
    "repeated": "are given to more images than caption.checks.max_repeated_fraction allows",
}


@dataclass(frozen=True)
class CaptionAudit:
    """What an audit found.

    Attributes:
        counts: Captions by what they are or have wrong.
        figures: Shares in [0, 1] and norms; None where there is nothing to take them of.
        messages: Everything past a threshold of `caption.checks`, and why a figure is not known.
        rows: The captions, without embeddings, with a list `flags` of names of `flags.FLAGS`.
    """

    counts: dict[str, int]
    figures: dict[str, float | None]
    messages: list[str]
    rows: pl.DataFrame


def audit_captions(
    workspace: Workspace,
    partitions: Sequence[str],
    version: CaptionVersion,
    checks: CaptionChecks,
) -> CaptionAudit:
    """Audit the captions of one version in some partitions, all together.

    Args:
        workspace: The workspace.
        partitions: Of the table `captions`; one that is not there has none.
        version: Which captions are meant.
        checks: When something is too short, too long, too many.

    Raises:
        DataError: A table is damaged or of another schema.
    """
    frames = [
        read_captions(workspace, partition, version, list(_READ)).with_columns(
            partition=pl.lit(partition)
        )
        for partition in partitions
    ]
    rows = pl.concat(frames).with_columns(
        usable=is_usable(), changed=is_changed(), **word_flags(checks)
    )
    embeddings, place = [_Embeddings(), _Embeddings()], 0
    for partition in partitions:
        for slice_ in _embedding_slices(workspace, partition, version):
            frame = slice_.with_row_index("place", place)
            place += frame.height
            for kind, found in zip(KINDS, embeddings, strict=True):
                found.add(frame.filter(pl.col("status") == "ok"), f"{kind}_embedding")
    counts, figures, messages = _judge_words(rows, checks)
    odd: set[int] = set()
    for kind, found in zip(KINDS, embeddings, strict=True):
        more_counts, more_figures, more_messages, its = found.judge(kind, checks)
        counts |= more_counts
        figures |= more_figures
        messages += more_messages
        odd |= its
    twins = embeddings[0].twins(rows["image_id"])
    counts["num_same_embedding"] = len(twins)
    if len(twins):
        messages.append(
            f"{len(twins)} images share their embedding with another image: copies of one "
            "picture, or a network that does not look at it."
        )
    rows = rows.with_columns(
        embedding=pl.int_range(pl.len()).is_in(list(odd)),
        twin=pl.col("image_id").is_in(twins.implode()),
    )
    return CaptionAudit(counts, figures, messages, _with_flags(rows, checks))


def _judge_words(
    rows: pl.DataFrame, checks: CaptionChecks
) -> tuple[dict[str, int], dict[str, float | None], list[str]]:
    num = {name: int(rows[name].sum()) for name in ("usable", "changed", *word_flags(checks))}
    num_written = rows.filter(pl.col("num_tokens").is_not_null()).height
    num_distinct = rows.filter("usable")["caption"].n_unique()
    of = {"empty": num_written, "wordless": num_written}
    counts = {
        "num_usable": num["usable"],
        "num_distinct": num_distinct,
        "num_changed": num["changed"],
        **{f"num_{flag}": num[flag] for flag in (*_SAYS, "age_words")},
    }
    shares = {flag: _share(num[flag], of.get(flag, num["usable"])) for flag in _SAYS}
    figures = {
        "distinct_fraction": _share(num_distinct, num["usable"]),
        "changed_fraction": _share(num["changed"], num["usable"]),
        **{f"{flag}_fraction": share for flag, share in shares.items()},
    }
    messages = [
        f"{num[flag]} captions ({share:.1%}) {_SAYS[flag]}: {_ADVICE[flag]}."
        for flag, share in shares.items()
        if share is not None and share > checks.max_flagged_fraction
    ]
    if num["age_words"]:
        messages.insert(
            0,
            f"{num['age_words']} captions still tell an age, such as "
            f"{rows.filter('age_words')['caption'][0]!r}: they would tell training the answer. "
            "Extend the filter (captions/age_words.py) and run the stage `caption` again.",
        )
    return counts, figures, messages


def _share(num: int, of: int) -> float | None:
    return num / of if of else None


@dataclass
class _Embeddings:
    """Norms and digests of one kind of embedding, gathered slice by slice: some 32 bytes an image.

    Images are told by their place among the rows of the audit, which are in the same order.
    """

    places: array = field(default_factory=lambda: array("q"))
    norms: array = field(default_factory=lambda: array("d"))
    digests: bytearray = field(default_factory=bytearray)
    missing: array = field(default_factory=lambda: array("q"))

    def add(self, rows: pl.DataFrame, column: str) -> None:
        """Take usable rows in, with their places in a column `place`."""
        there = rows.filter(pl.col(column).is_not_null())
        self.missing.extend(rows.filter(pl.col(column).is_null())["place"])
        self.places.extend(there["place"])
        values = there[column].explode(empty_as_null=False).to_numpy().astype(np.float16)
        ends = np.cumsum(there[column].list.len().to_numpy())
        # Without rows, split gives one empty piece.
        for vector in np.split(values, ends[:-1])[: there.height] if there.height else []:
            self.norms.append(float(np.linalg.norm(vector.astype(np.float64))))
            self.digests += blake2b(vector.tobytes(), digest_size=_DIGEST_BYTES).digest()

    def judge(
        self, kind: str, checks: CaptionChecks
    ) -> tuple[dict[str, int], dict[str, float | None], list[str], set[int]]:
        """Return counts, figures, messages, and the places of images with an odd embedding."""
        norms, places = np.array(self.norms, np.float64), np.array(self.places, np.int64)
        finite = np.isfinite(norms)
        zero = finite & (norms == 0)
        good = norms[finite & ~zero]
        middle = float(np.median(good)) if len(good) else None
        far = np.zeros(len(norms), bool)
        if middle is not None:
            limit = checks.max_norm_factor
            far = finite & ~zero & ((norms > limit * middle) | (norms < middle / limit))
        counts = {
            f"num_without_{kind}_embedding": len(self.missing),
            f"num_{kind}_not_finite": int((~finite).sum()),
            f"num_{kind}_norm_zero": int(zero.sum()),
            f"num_{kind}_norm_far": int(far.sum()),
        }
        figures = {
            f"{kind}_norm_min": float(good.min()) if len(good) else None,
            f"{kind}_norm_median": middle,
            f"{kind}_norm_max": float(good.max()) if len(good) else None,
        }
        messages = []
        bad = len(self.missing) + int((~finite).sum() + zero.sum())
        if bad:
            messages.append(
                f"{bad} captions have no {kind} embedding, or one that is zero or not finite: "
                "training cannot use it. Run the stage `caption` in fp32."
            )
        if far.any():
            messages.append(
                f"{int(far.sum())} {kind} embeddings have a norm over {checks.max_norm_factor:g} "
                f"times from the median {middle:.3g}: look at these images."
            )
        return counts, figures, messages, {*self.missing, *places[~finite | zero | far].tolist()}

    def twins(self, image_ids: pl.Series) -> pl.Series:
        """Return the images, of all by place, whose embedding another image has, too."""
        digests = np.frombuffer(bytes(self.digests), f"V{_DIGEST_BYTES}")
        _, which, counts = np.unique(digests, return_inverse=True, return_counts=True)
        chosen = counts[which] > 1
        same = pl.DataFrame({
            "image_id": image_ids.gather(np.array(self.places, np.int64)[chosen]),
            "digest": which[chosen],
        })  # fmt: skip
        # The same file may lie in two shards: it is one image.
        several = pl.col("image_id").n_unique().over("digest") > 1
        return same.filter(several)["image_id"].unique()


def _embedding_slices(
    workspace: Workspace, partition: str, version: CaptionVersion
) -> Iterator[pl.DataFrame]:
    path = table_path(workspace, CAPTIONS, partition)
    if path.exists():
        columns = [*CAPTIONS.key, "status", *(f"{kind}_embedding" for kind in KINDS)]
        for rows in SortedTable(path, CAPTIONS).slices(columns):
            yield rows.filter(of_version(version))


def _with_flags(rows: pl.DataFrame, checks: CaptionChecks) -> pl.DataFrame:
    names = [*word_flags(checks), "embedding", "twin"]
    named = [pl.when(pl.col(name)).then(pl.lit(name)) for name in names]
    flags = pl.concat_list(named).list.drop_nulls()
    return rows.select(*_READ, "partition", "usable", "changed", flags=flags)
