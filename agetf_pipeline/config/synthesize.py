"""The synthetic corpus: how many faces, how large, how noisy, how degraded."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class SynthesizeConfig(Section):
    """A synthetic corpus in the true on-disk layouts. `enabled` is false for real photographs."""

    enabled: bool = False
    seed: int = 0
    size_px: int = Field(default=128, ge=64, le=256)
    num_ffhq_images: int = Field(default=1500, ge=0, description="One identity each.")
    num_caf_shards: int = Field(default=4, ge=0)
    num_subjects_per_shard: int = Field(default=60, ge=1)
    num_ages_per_subject: int = Field(default=5, ge=1)
    photograph_variation: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="How far light, pose and smile differ between a subject's photographs.",
    )
    degraded_fraction: float = Field(default=0.4, ge=0, le=1)
    crowd_error: float = Field(
        default=1.25, ge=0, description="Scale of the crowd's error in age; 0: always right."
    )
