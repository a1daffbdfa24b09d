"""The mixture of age experts as an MLflow model: pictures in, ages with their doubts out.

MLflow runs this file when the model is loaded (models from code): no pickle is involved.
"""

import threading
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from agetf_pipeline.registry.requests import pictures_of


class MixtureModel(PythonModel):
    """Reads ages as `agetf estimate-age` does."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the experts and the calibration that were logged with the model."""
        from pathlib import Path

        from agetf_pipeline.config import PipelineConfig
        from agetf_pipeline.core.files import read_json
        from agetf_pipeline.core.workspace import Workspace
        from agetf_pipeline.experts.estimate import load_estimator

        folder = Path(context.artifacts["mixture"])
        config = PipelineConfig.model_validate(read_json(folder / "config.json"))
        self._estimator = load_estimator(config, Workspace(folder))
        # The server calls from several threads, and OpenCV's face detector stands only one.
        self._lock = threading.Lock()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Estimate the age of every picture.

        Args:
            context: Of MLflow.
            model_input: Column `image`: the bytes of a JPEG, PNG or WebP file.
            params: `aligned`: the faces fill the pictures already; otherwise they are found.

        Returns:
            A row per picture, in their order, with `mixture_columns.COLUMNS`. A picture without an
            age has nulls and the reason: it does not spoil the others.
        """
        from agetf_pipeline.registry.mixture_columns import to_table

        pictures = pictures_of(model_input["image"])
        aligned = bool((params or {}).get("aligned", False))
        with self._lock:
            return to_table(self._estimator.estimate_all(pictures, aligned))


set_model(MixtureModel())
