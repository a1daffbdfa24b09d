"""Evaluation: the networks outside training, and what is measured."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class TrainEvaluatorsConfig(Section):
    """Age estimator and identity embedder that training never sees."""

    num_steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    input_px: int = Field(default=64, ge=32)
    width: int = Field(default=32, ge=8)
    seed: int = 2


class EvaluateConfig(Section):
    """What is rendered and measured."""

    num_faces: int = Field(default=64, ge=1, description="Held-out faces rendered at every anchor.")
    num_grid_faces: int = Field(default=8, ge=1)
    num_bootstrap: int = Field(default=500, ge=10)
    min_cell: int = Field(default=30, ge=1, description="Smaller cells are suppressed.")
    batch_size: int = Field(default=16, ge=1)
    seed: int = 0
