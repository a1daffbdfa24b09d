"""The training manifest."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class AssembleConfig(Section):
    """Joins labels, keep-list, enhancement and captions into what training reads."""

    split_seed: int = 0
    split_fractions: dict[str, float] = Field(default={"train": 0.8, "val": 0.1, "test": 0.1})
    corpus_age_variance_years2: float = Field(
        default=1.0,
        ge=0,
        description="Of an age given by the corpus (CAF manifests), rounding included.",
    )
    min_images: int = Field(default=8, ge=1, description="Fewer: there is nothing to train on.")
