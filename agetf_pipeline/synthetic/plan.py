"""Which pictures a synthetic corpus holds: a function of the configuration alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, caf_partition, shard_of
from agetf_pipeline.synthetic.degrade import BLUR, GREY, JPEG, LOW_RES
from agetf_pipeline.synthetic.identity import Identity, draw_identity
from agetf_pipeline.synthetic.photographs import Photograph
from agetf_pipeline.synthetic.population import ffhq_ages, rephotograph, subject_ages

_NUM_FFHQ = 70_000
_CAF_SEEDS = 500_000_000
_KINDS: tuple[tuple[tuple[str, ...], float], ...] = (
    ((GREY,), 0.28),
    ((LOW_RES,), 0.20),
    ((BLUR,), 0.10),
    ((JPEG,), 0.14),
    ((GREY, LOW_RES), 0.16),
    ((GREY, JPEG), 0.07),
    ((BLUR, JPEG), 0.05),
)


def plan_corpus(config: SynthesizeConfig, workspace: Workspace) -> list[Photograph]:
    """Return every picture of the corpus, partition by partition."""
    return [*_plan_ffhq(config, workspace), *_plan_caf(config, workspace)]


def _plan_ffhq(config: SynthesizeConfig, workspace: Workspace) -> Iterator[Photograph]:
    count = config.num_ffhq_images
    ages = ffhq_ages(count, config.seed)
    for index in range(count):
        number = image_number(index, count)
        folder = workspace.raw_ffhq / f"{number // 1000 * 1000:05d}"
        path = workspace.relative(folder / f"{number:05d}.png")
        who = draw_identity(config.seed * 1_000_000_000 + number)
        yield Photograph(
            path=path,
            partition=FFHQ_PARTITION,
            identity=_dress(who, ages[index]),
            age_years=float(ages[index]),
            size_px=config.size_px,
            degradations=(),
            seed=number,
            clean_path=path,
        )


def image_number(index: int, count: int) -> int:
    """Return the FFHQ number of the index-th of `count` images: spread over 0 to 69999.

    So the customary test range, 60000 to 69999, holds its share of a small corpus too.
    """
    return index * _NUM_FFHQ // count


def _plan_caf(config: SynthesizeConfig, workspace: Workspace) -> Iterator[Photograph]:
    for shard in range(config.num_caf_shards):
        partition = caf_partition(f"shard-{shard:04d}")
        for place in range(config.num_subjects_per_shard):
            # The number goes with shard and place: another shard changes nothing in the others.
            number = shard * config.num_subjects_per_shard + place
            seed = config.seed * 1_000_000_000 + _CAF_SEEDS + number * 1_000
            who = draw_identity(seed)
            for k, age in enumerate(subject_ages(config.num_ages_per_subject, seed)):
                yield _caf_photograph(
                    config, workspace, partition, f"subject-{number:05d}", k, who, age, seed + k + 1
                )


def _caf_photograph(
    config: SynthesizeConfig,
    workspace: Workspace,
    partition: str,
    subject: str,
    k: int,
    who: Identity,
    age: int,
    seed: int,
) -> Photograph:
    rng = np.random.default_rng([113, seed])
    degraded = rng.uniform() < config.degraded_fraction
    kinds = _KINDS[int(rng.choice(len(_KINDS), p=[share for _, share in _KINDS]))][0]
    kinds = kinds if degraded else ()
    stem = f"{subject}-{k}"
    suffix = ".jpg" if JPEG in kinds else ".png"
    path = workspace.relative(shard_folder(workspace, partition) / f"{stem}{suffix}")
    clean = workspace.relative(workspace.truth / "clean" / partition / f"{stem}.png")
    return Photograph(
        path=path,
        partition=partition,
        identity=_dress(rephotograph(who, seed, config.photograph_variation), age),
        age_years=float(age),
        size_px=config.size_px,
        degradations=kinds,
        seed=seed,
        clean_path=clean if kinds else path,
    )


def _dress(who: Identity, age_years: float) -> Identity:
    """Small children seldom wear glasses, and never dark ones here."""
    if age_years < 6 and (who.glasses == "Dark" or who.seed % 4):
        return replace(who, glasses="None")
    return who


def shard_folder(workspace: Workspace, partition: str) -> Path:
    """Return the folder of a CAF shard."""
    return workspace.raw_caf / shard_of(partition)
