"""Evaluation: the networks outside training, and what is measured."""

from pathlib import Path

from pydantic import Field

from agetf_pipeline.config.base import Section


class TrainEvaluatorsConfig(Section):
    """Age estimator, identity embedder and attribute classifier that training never sees.

    A synthetic workspace trains them on faces drawn for this alone. Otherwise they are taken from
    files, or, but for attributes, trained on the labelled CAF images of the train split.
    """

    num_steps: int = Field(default=400, ge=1, description="Of each training.")
    num_identity_steps: int | None = Field(
        default=None, ge=1, description="Of the identity embedder's. None: num_steps."
    )
    num_attribute_steps: int | None = Field(
        default=None, ge=1, description="Of the attribute classifier's. None: num_steps."
    )
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    input_px: int = Field(default=64, ge=32)
    width: int = Field(default=32, ge=8)
    embedding_dim: int = Field(default=64, ge=8)
    num_identities: int = Field(
        default=500, ge=2, description="Drawn for training; synthetic workspaces only."
    )
    num_ages_per_identity: int = Field(default=6, ge=2, le=900)
    min_images: int = Field(
        default=64, ge=2, description="Fewer labelled images: no evaluator, and said so."
    )
    age_estimator_weights: Path | None = Field(
        default=None, description="Weights of evaluation.networks.AgeEstimator to use instead."
    )
    identity_embedder_weights: Path | None = Field(
        default=None,
        description="An AdaFace or ArcFace checkpoint, or an embedder of this project, likewise.",
    )
    attribute_classifier_weights: Path | None = Field(
        default=None, description="Weights of evaluation.attributes.AttributeClassifier, likewise."
    )
    seed: int = 2


class EvaluateConfig(Section):
    """What is rendered and measured."""

    num_faces: int = Field(
        default=300, ge=1, description="Held-out faces rendered at every anchor."
    )
    num_grid_faces: int = Field(default=8, ge=1)
    num_redrawn_faces: int = Field(
        default=64, ge=1, description="Synthetic people drawn again at every anchor, to compare."
    )
    num_cases: int = Field(
        default=4, ge=1, description="Faces shown of the best, the median and the worst cases."
    )
    read_by_mixture: bool = Field(
        default=True,
        description="Renderings are read by the mixture of experts, too; costly without a GPU.",
    )
    inception_weights: Path | None = Field(
        default=None, description="InceptionV3 as FID uses it; without it FID and KID are null."
    )
    alexnet_weights: Path | None = Field(
        default=None, description="torchvision's AlexNet; without it LPIPS is null."
    )
    compare_with_champion: bool = Field(
        default=True,
        description="The registry's champion renders the same faces, for the paired differences.",
    )
    num_bootstrap: int = Field(default=500, ge=10)
    interval_level: float = Field(default=0.95, gt=0, lt=1)
    min_cell: int = Field(default=30, ge=1, description="Smaller cells are suppressed.")
    false_accept_rate: float = Field(
        default=1e-3, gt=0, lt=1, description="Sets the verification threshold."
    )
    max_mixture_to_best_expert: float = Field(
        default=1.02, gt=0, description="Must hold: mixture MAE over the best expert's."
    )
    min_age_spearman: float = Field(
        default=0.8, ge=-1, le=1, description="Must hold: target age against the age read."
    )
    seed: int = 0
