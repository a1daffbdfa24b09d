"""The variance filter."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class FilterConfig(Section):
    """What training may use. A looser threshold always keeps a superset."""

    max_sigma_years: float = Field(
        default=8.0, gt=0, description="Of the mixture (root of the variance)."
    )
    max_disagreement_years: float | None = Field(
        default=10.0,
        gt=0,
        description="Of the experts (root of the variance between them, which is a part of the "
        "variance: at or above max_sigma_years it drops nothing more). None: off.",
    )
    max_interval_width_years: float = Field(default=40.0, gt=0)
    min_crowd_confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Of FFHQ-Aging's age group; images below it are dropped. None: off, since the "
        "label is the mixture's, not the crowd's.",
    )
    drop_review: bool = Field(
        default=False,
        description="Drop images whose label the mixture wants a person to look at; those that it "
        "gives up are dropped in any case.",
    )
    max_head_pitch: float = Field(
        default=30.0, gt=0, description="Degrees; FFHQ-Aging's pose columns."
    )
    max_head_yaw: float = Field(default=40.0, gt=0)
    max_head_roll: float | None = Field(
        default=None, gt=0, description="None: off, since aligned faces are upright."
    )
    drop_dark_glasses: bool = True
    max_eye_occluded: float = Field(
        default=90.0, gt=0, description="Percent, of the more occluded eye."
    )
    max_other_eye_occluded: float = Field(default=50.0, gt=0, description="Percent, of the other.")
    min_kept_per_group: int = Field(
        default=5,
        ge=0,
        description="The surest images of each age group of a partition pass whatever their "
        "uncertainty, this many; pose, glasses, occlusion and the mixture's own decision still "
        "count.",
    )
    sigma0_years: float = Field(default=8.0, gt=0, description="Of the curriculum weight.")
