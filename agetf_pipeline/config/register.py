"""The MLflow registry and the release files."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class RegisterConfig(Section):
    """Where runs and models are registered."""

    tracking_uri: str | None = Field(
        default=None, description="None: SQLite, mlflow.db of the workspace."
    )
    experiment: str = "age-transformer"
    model_name: str = "age-transformer"


class ReleaseConfig(Section):
    """The files for others."""

    include_images: bool = Field(
        default=False, description="Pictures of people stay out unless asked for."
    )
    version: str = "0.1.0"
