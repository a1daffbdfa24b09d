"""Evaluation: the networks outside training, and what is measured."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class TrainEvaluatorsConfig(Section):
    """Age estimator and identity embedder that training never sees."""

    num_steps: int = Field(400, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    input_px: int = Field(64, ge=32)
    width: int = Field(32, ge=8)
    seed: int = 2


class EvaluateConfig(Section):
    """What is rendered and measured."""

    num_faces: int = Field(64, ge=1, description="Held-out faces rendered at every anchor.")
    num_grid_faces: int = Field(8, ge=1)
    num_bootstrap: int = Field(500, ge=10)
    min_cell: int = Field(30, ge=1, description="Smaller cells are suppressed.")
    batch_size: int = Field(16, ge=1)
    seed: int = 0
