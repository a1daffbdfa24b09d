"""The variance filter."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class FilterConfig(Section):
    """What training may use. A looser threshold always keeps a superset."""

    max_sigma_years: float = Field(
        default=8.0, gt=0, description="Of the mixture (root of the variance)."
    )
    max_interval_width_years: float = Field(default=40.0, gt=0)
    max_head_pitch: float = Field(
        default=30.0, gt=0, description="Degrees; FFHQ-Aging's pose columns."
    )
    max_head_yaw: float = Field(default=40.0, gt=0)
    drop_dark_glasses: bool = True
    max_eye_occluded: float = Field(
        default=90.0, gt=0, description="Percent, of the more occluded eye."
    )
    max_other_eye_occluded: float = Field(default=50.0, gt=0, description="Percent, of the other.")
    min_kept_per_group: int = Field(
        default=5,
        ge=0,
        description="The surest images of each age group of a partition pass whatever their "
        "uncertainty, this many; pose, glasses and occlusion still count.",
    )
    sigma0_years: float = Field(default=8.0, gt=0, description="Of the curriculum weight.")
