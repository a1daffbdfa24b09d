"""The AgeTransformer as an MLflow model: images and ages in, images out.

MLflow runs this file when the model is loaded (models from code): no pickle is involved.
"""

import io
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from agetf_pipeline.core.errors import DataError


class AgeTransformerModel(PythonModel):
    """Renders faces at ages."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights that were logged with the model."""
        from pathlib import Path

        from agetf_pipeline.age_transformer.renderer import Renderer

        self._renderer = Renderer.load(Path(context.artifacts["weights"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Render every image at every age.

        Args:
            context: Of MLflow.
            model_input: Column `image`: the bytes of a PNG or JPEG, an aligned face.
            params: `ages`: ages in years, 0 to 100; empty: the model's anchors.

        Returns:
            A row per image and age: `image_index`, `age_years`, `image` (PNG bytes).

        Raises:
            DataError: An image cannot be read, or an age lies outside 0 to 100.
        """
        from agetf_pipeline.data.images import resize_rgb

        ages = [float(age) for age in (params or {}).get("ages", [])]
        ages = ages or [float(age) for age in self._renderer.settings.anchors_years]
        rows = []
        for index, data in enumerate(model_input["image"]):
            face = resize_rgb(_decode(data, index), self._renderer.size_px)
            for age, image in zip(ages, self._renderer.render(face[None], ages)[0], strict=True):
                rows.append({"image_index": index, "age_years": age, "image": _encode(image)})
        return pd.DataFrame(rows, columns=["image_index", "age_years", "image"])


def _decode(data: Any, index: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    from agetf_pipeline.data.images import to_rgb

    try:
        with Image.open(io.BytesIO(bytes(data)), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(
                    f"Expected at most {_MAX_PIXELS} pixels in image {index}; found "
                    f"{image.width} x {image.height}. Crop and shrink it to the face."
                )
            return np.asarray(to_rgb(image))
    except (OSError, ValueError, SyntaxError, TypeError, UnidentifiedImageError) as error:
        raise DataError(
            f"Expected the bytes of a PNG or JPEG in image {index}; found: {error}. Give the "
            "file's bytes (base64 over HTTP)."
        ) from error


def _encode(image: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


_MAX_PIXELS = 40_000_000

set_model(AgeTransformerModel())
