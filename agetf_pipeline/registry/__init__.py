"""Runs and models in MLflow: the only importer of mlflow."""

from agetf_pipeline.registry.resolving import resolve_model

__all__ = ["resolve_model"]
