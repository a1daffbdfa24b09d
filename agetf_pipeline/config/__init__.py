"""Configuration: pydantic models, a file per stage. `load_config` is the one way to get one."""

from agetf_pipeline.config.load import load_config, workspace_of
from agetf_pipeline.config.pipeline import PipelineConfig

__all__ = ["PipelineConfig", "load_config", "workspace_of"]
