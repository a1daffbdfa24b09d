"""What training reads: the manifest's faces in memory or on a memory map, and seeded batches.

A batch is a function of the seed and the step alone, so that a resumed run sees what an
uninterrupted one would have seen.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, remove_temporary_files, reserve
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.statistics import effective_number
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.core.yaml_files import read_yaml
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, TRAINING_MANIFEST
from agetf_pipeline.data.tables import table_hashes

if TYPE_CHECKING:
    from agetf_pipeline.config.train import TrainConfig

_CACHE_VERSION = "1"
_CHUNK = 256
_BALANCE_BETA = 0.995
NO_ROW = -1


@dataclass(frozen=True)
class FaceData:
    """One split of the manifest, as arrays of equal length n (images m >= n).

    Attributes:
        images: uint8 (m, S, S, 3): the n originals, then enhanced counterparts; may be a map.
        rows: int64 (n,), image of each original in `images`.
        enhanced_rows: int64 (n,), image of its enhanced counterpart, or NO_ROW.
        image_ids: The n image ids.
        ages_years: float32 (n,), labels.
        variances_years2: float32 (n,), of the labels.
        groups: int64 (n,), index into AGE_GROUPS.
        identities: int64 (n,), equal for one person.
    """

    images: np.ndarray
    rows: np.ndarray
    enhanced_rows: np.ndarray
    image_ids: tuple[str, ...]
    ages_years: np.ndarray
    variances_years2: np.ndarray
    groups: np.ndarray
    identities: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, indices: np.ndarray, use_enhanced: np.ndarray) -> np.ndarray:
        """Return images uint8 of items, the enhanced counterpart where asked for and present."""
        enhanced = self.enhanced_rows[indices]
        rows = np.where(use_enhanced & (enhanced != NO_ROW), enhanced, self.rows[indices])
        return np.asarray(self.images[rows])

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process needs: of a map its file, not the images in it."""
        state, images = dict(self.__dict__), self.images
        if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap):
            state["images"] = _Map(str(images.filename), images.shape, images.offset)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        if isinstance(images, _Map):
            images = np.memmap(images.file, np.uint8, "r", images.offset, images.shape)
        self.__dict__.update(state, images=images)


@dataclass(frozen=True)
class _Map:
    """Where mapped images lie in a file."""

    file: str
    shape: tuple[int, ...]
    offset: int


def load_face_data(
    workspace: Workspace, manifest: pl.DataFrame, size_px: int, split: str
) -> FaceData:
    """Return one split of the manifest, its images from a cache on disk (made if absent).

    The cache is a memory-mapped array, so that a corpus larger than memory trains too.
    """
    paths = manifest["face_path"].to_list()
    has_enhanced = manifest["enhanced_path"].is_not_null().to_numpy()
    enhanced_paths = manifest["enhanced_path"].drop_nulls().to_list()
    images = _cached_images(workspace, paths + enhanced_paths, size_px)
    enhanced_rows = np.full(len(paths), NO_ROW, np.int64)
    enhanced_rows[has_enhanced] = len(paths) + np.arange(len(enhanced_paths))
    names, identities = np.unique(manifest["identity"].to_numpy(), return_inverse=True)
    assert len(names) or not len(paths)
    chosen = (manifest["split"] == split).to_numpy()
    index_of = {group: index for index, group in enumerate(AGE_GROUPS)}
    groups = np.array([index_of[group] for group in manifest["age_group"]], np.int64)
    return FaceData(
        images,
        np.flatnonzero(chosen).astype(np.int64),
        enhanced_rows[chosen],
        tuple(manifest.filter(pl.Series(chosen))["image_id"].to_list()),
        manifest["age_years"].to_numpy().astype(np.float32)[chosen],
        manifest["variance_years2"].to_numpy().astype(np.float32)[chosen],
        groups[chosen],
        identities.astype(np.int64)[chosen],
    )


def _cached_images(workspace: Workspace, paths: list[str], size_px: int) -> np.ndarray:
    """Return uint8 (len(paths), size_px, size_px, 3) as a read-only memory map."""
    inputs = {
        **table_hashes(workspace, IMAGES),
        **table_hashes(workspace, ENHANCED),
        **table_hashes(workspace, TRAINING_MANIFEST),
    }
    name = fingerprint({"size_px": size_px, "paths": paths}, _CACHE_VERSION, inputs)[:32]
    folder = workspace.state / "cache" / f"faces_{size_px}"
    path = folder / f"{name}.npy"
    with exclusive_lock(workspace.state / "locks" / f"faces_{size_px}.lock", "the face cache"):
        if not path.exists():
            remove_temporary_files(folder)
            for stale in folder.glob("*.npy"):
                stale.unlink()
            shape = (len(paths), size_px, size_px, 3)
            with atomic_path(path) as temporary, Progress("face cache", len(paths)) as progress:
                images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                reserve(temporary)
                for start in range(0, len(paths), _CHUNK):
                    chunk = paths[start : start + _CHUNK]
                    images[start : start + len(chunk)] = load_faces(workspace, chunk, size_px)
                    progress.advance(len(chunk))
                images.flush()
                del images
    return np.load(path, mmap_mode="r", allow_pickle=False)


def balanced_probabilities(groups: np.ndarray) -> np.ndarray:
    """Return sampling probabilities, (n,), that even out age groups without repeating a few faces.

    A group's share is in proportion to its effective number of samples over its size.
    Source: class-balanced weights, Cui et al. 2019, beta 0.995.
    """
    counts = np.bincount(groups, minlength=len(AGE_GROUPS))
    weight = np.zeros(len(counts))
    present = counts > 0
    weight[present] = (1 - _BALANCE_BETA) / (1 - _BALANCE_BETA ** counts[present])
    probabilities = weight[groups]
    return probabilities / probabilities.sum()


def effective_sizes(
    ages_years: np.ndarray, variances_years2: np.ndarray, anchors_years: list[float]
) -> dict[float, float]:
    """Return the effective number of images within 5 years of each anchor.

    With weights `1 / (1 + variance / 8^2)`, see `core.statistics.effective_number`: images whose
    age is unsure count for less beside sure ones.
    """
    sizes = {}
    for anchor in anchors_years:
        near = np.abs(ages_years - anchor) <= 5
        weights = 1 / (1 + variances_years2[near].astype(np.float64) / 64)
        sizes[anchor] = effective_number(weights)
    return sizes


@dataclass(frozen=True)
class Batch:
    """One step's data: B images, each to be rendered at A ages.

    Attributes:
        indices: int64 (B,), items of the split.
        ages_years: float32 (B, A); column 0 is the label of the source.
        has_target: bool (B, A), where there is a picture; column 0, the source itself, always true.
        variances_years2: float32 (B, A), of the label behind each target; 0 where there is none.
        pictures: uint8 (P, S, S, 3), those of `has_target`, row by row.
    """

    indices: np.ndarray
    ages_years: np.ndarray
    has_target: np.ndarray
    variances_years2: np.ndarray
    pictures: np.ndarray

    @property
    def sources(self) -> np.ndarray:
        """The images, uint8 (B, S, S, 3)."""
        return self.pictures[source_rows(self.has_target)]

    @property
    def targets(self) -> np.ndarray:
        """The same person at each age, uint8 (B, A, S, S, 3), zeros but where `has_target`."""
        targets = np.zeros((*self.has_target.shape, *self.pictures.shape[1:]), np.uint8)
        targets[self.has_target] = self.pictures
        return targets


def source_rows(has_target: np.ndarray) -> np.ndarray:
    """Return the row of each source among a batch's pictures, int64 (B,)."""
    counts = has_target.sum(axis=1)
    return np.cumsum(counts) - counts


class Sampler:
    """Draws the batch of any step."""

    def __init__(self, data: FaceData, config: "TrainConfig", anchors_years: list[float]) -> None:
        if not len(data):
            raise DataError(
                "Expected images of split 'train' in the training manifest; found none. "
                "Add images, or loosen the filter (filter.max_sigma_years)."
            )
        self.data, self._config, self._anchors = data, config, np.array(anchors_years)
        order = np.argsort(data.identities, kind="stable")
        starts = np.flatnonzero(np.diff(data.identities[order], prepend=-1))
        self._people = {
            int(data.identities[members[0]]): members
            for members in np.split(order, starts[1:])
            if len(members) > 1
        }
        self._pairable = np.flatnonzero(np.isin(data.identities, list(self._people)))
        p = balanced_probabilities(data.groups)
        # Summed once: a corpus of 300,000 images would be summed again in every step.
        self._cumulative = _cumulative(p)
        self._cumulative_pairable = _cumulative(p[self._pairable])

    @property
    def batch_size(self) -> int:
        """Images of a whole batch."""
        return self._config.batch_size

    @property
    def num_pairable(self) -> int:
        """Images whose subject has another image in the split."""
        return len(self._pairable)

    def draw(self, step: int, rows: np.ndarray | None = None) -> Batch:
        """Return the batch of a step.

        Args:
            step: Number of the step.
            rows: Rows of the batch to return, for one of several processes that share it; None:
                all. Whatever is asked for, a row is the same, and only its pictures are read.
        """
        config, data = self._config, self.data
        rng = np.random.default_rng([config.seed, 20_001, step])
        indices = self._items(rng)
        every = config.all_anchors_every
        if every and step % every == every - 1:
            others = np.tile(self._anchors, (len(indices), 1))
            ages = np.concatenate([data.ages_years[indices, None], others], axis=1)
            partners = np.full(ages.shape, NO_ROW, np.int64)
        else:
            ages, partners = self._ages(indices, rng)
        partners[:, 0] = indices
        enhanced = rng.random(ages.shape) < config.enhanced_probability
        flipped = rng.random(len(indices)) < 0.5
        kept = slice(None) if rows is None else rows
        indices, ages, partners = indices[kept], ages[kept], partners[kept]
        has_target = partners != NO_ROW
        variances = np.where(has_target, data.variances_years2[partners], 0).astype(np.float32)
        pictures = data.pick(partners[has_target], enhanced[kept][has_target])
        mirrored = np.broadcast_to(flipped[kept][:, None], has_target.shape)[has_target]
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        return Batch(indices, ages.astype(np.float32), has_target, variances, pictures)

    def _items(self, rng: np.random.Generator) -> np.ndarray:
        config = self._config
        num_paired = round(config.batch_size * config.paired_fraction) if self._people else 0
        free = rng.random(config.batch_size - num_paired)
        parts = [self._cumulative.searchsorted(free, side="right")]
        if num_paired:
            places = self._cumulative_pairable.searchsorted(rng.random(num_paired), side="right")
            parts.append(self._pairable[places])
        return np.concatenate(parts).astype(np.int64)

    def _ages(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Own age, the ages of other images of the subject, and ages without truth.

        The last column of a subject's row goes without truth as often as ages lie off the anchors:
        ages that nobody was photographed at are trained by the guidance networks alone.
        """
        data, num_ages = self.data, self._config.ages_per_image
        ages = np.stack([self._free_ages(num_ages, rng) for _ in indices])
        ages[:, 0] = data.ages_years[indices]
        partners = np.full(ages.shape, NO_ROW, np.int64)
        for row, index in enumerate(indices):
            members = self._people.get(int(data.identities[index]))
            if members is None:
                continue
            free = int(rng.random() < self._config.off_anchor_fraction)
            others = rng.permutation(members[members != index])[: max(1, num_ages - 1 - free)]
            partners[row, 1 : 1 + len(others)] = others
            ages[row, 1 : 1 + len(others)] = data.ages_years[others]
        return ages, partners

    def _free_ages(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Distinct anchors at random, some of them moved off to a neighbouring age."""
        repeats = -(-count // len(self._anchors))
        ages = np.concatenate([rng.permutation(self._anchors) for _ in range(repeats)])[:count]
        moved = rng.random(count) < self._config.off_anchor_fraction
        shifted = ages + rng.uniform(-5, 5, count)
        return np.where(moved, shifted, ages).clip(0, 100)


def _cumulative(probabilities: np.ndarray) -> np.ndarray:
    """Return the running sum of probabilities, scaled to end at exactly 1."""
    sums = (probabilities / probabilities.sum()).cumsum() if len(probabilities) else probabilities
    return sums / sums[-1:]


def read_anchors(path: Path) -> list[float]:
    """Read the anchor ages of a YAML file, `anchors_years: [5, 15, ...]`, rising, 0 to 100.

    Raises:
        DataError: The file is absent or holds something else.
    """
    if not path.is_file():
        raise DataError(
            f"Expected anchor ages at {path}; found nothing. Set train.anchors to "
            "configs/age_anchors.yaml of the repository."
        )
    try:
        values = read_yaml(path)
    except ValueError as error:
        raise DataError(
            f"Expected YAML in {path}; found none that can be read ({type(error).__name__}). "
            "Correct the file."
        ) from None
    anchors = values.get("anchors_years") if isinstance(values, dict) else None
    if not isinstance(anchors, list) or not all(isinstance(a, int | float) for a in anchors):
        anchors = []
    if len(anchors) < 2 or sorted(set(anchors)) != anchors:
        # Not what is in the file: a setting may name any, and messages are read by many.
        keyed = isinstance(values, dict) and "anchors_years" in values
        found = "others under that key" if keyed else f"{type(values).__name__} without that key"
        raise DataError(
            f"Expected 'anchors_years: [5, 15, ...]', rising numbers, in {path}; found {found}. "
            "Set train.anchors to configs/age_anchors.yaml of the repository."
        )
    if anchors[0] < 0 or anchors[-1] > 100:
        raise DataError(f"Expected anchors of 0 to 100 years in {path}; found {anchors}.")
    return [float(anchor) for anchor in anchors]
