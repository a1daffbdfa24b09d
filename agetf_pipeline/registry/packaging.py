"""The AgeTransformer packed as an MLflow model: code, weights, signature, input example."""

import io
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agetf_pipeline.registry.tracking import import_mlflow

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL_ARTIFACT = "model"
WEIGHTS_ARTIFACT = "weights"
PACKAGE = Path(__file__).parents[1]
"""Logged with each model: whoever loads one needs no copy of this repository."""

_BASE_REQUIREMENTS = (
    "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "safetensors", "torch",
)  # fmt: skip


def log_model(run_id: str, weights: Path, anchors_years: tuple[float, ...], size_px: int) -> str:
    """Log the model in a run of the connected tracking server.

    Args:
        run_id: The run.
        weights: Weights of an AgeTransformer.
        anchors_years: Its anchors, the default ages.
        size_px: Side of its images, for the input example.

    Returns:
        The logged model's URI, which a registered version can be made from.
    """
    mlflow = import_mlflow()
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name=MODEL_ARTIFACT,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={WEIGHTS_ARTIFACT: str(weights)},
            code_paths=[str(PACKAGE)],
            signature=signature(anchors_years),
            input_example=input_example(size_px, anchors_years),
            pip_requirements=requirements(),
        )
    return info.model_uri


def signature(anchors_years: tuple[float, ...]) -> "ModelSignature":
    """Return the model's signature: `image` bytes and params in, indexed PNG bytes out."""
    import_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.long, "image_index"),
                ColSpec(DataType.double, "age_years"),
                ColSpec(DataType.binary, "image"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("ages", DataType.double, list(anchors_years), (-1,)),
                ParamSpec("aligned", DataType.boolean, True),
                ParamSpec("face", DataType.string, "only"),
            ]
        ),
    )


def input_example(size_px: int, anchors_years: tuple[float, ...]) -> Any:
    """Return an example of the input: a plain grey gradient, no face of anybody, and ages."""
    import pandas as pd

    return pd.DataFrame({"image": [grey_png(size_px)]}), {"ages": list(anchors_years[:2])}


def grey_png(size_px: int) -> bytes:
    """Return a PNG of a square grey gradient."""
    from PIL import Image

    ramp = np.linspace(64, 192, size_px).astype(np.uint8)
    picture = np.repeat(np.tile(ramp, (size_px, 1))[:, :, None], 3, axis=2)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def requirements(further: Iterable[str] = ()) -> list[str]:
    """Return what the logged code imports, each in the version at hand, for MLflow to install.

    Given, not inferred: inference would load the model in a second process. A build's own suffix
    is left out (`2.11.0+cpu`): package indices know the release alone.

    Args:
        further: Distributions beside those that rendering needs.
    """
    names = sorted({*_BASE_REQUIREMENTS, *further})
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
