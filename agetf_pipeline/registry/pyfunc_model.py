"""The AgeTransformer as an MLflow model: images and ages in, images out.

MLflow runs this file when the model is loaded (models from code): no pickle is involved.
"""

import io
import threading
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.registry.requests import Refusal, pictures_of

_COLUMNS = ["image_index", "age_years", "image"]
_MAX_AGES = 101  # every year from 0 to 100; they pass through the decoder at once
_MAX_RENDERINGS = 10_000  # of a request: all of them are in memory when it is answered


class AgeTransformerModel(PythonModel):
    """Renders faces at ages."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights that were logged with the model."""
        from pathlib import Path

        from agetf_pipeline.age_transformer.renderer import Renderer

        self._renderer = Renderer.load(Path(context.artifacts["weights"]))
        # The server calls from several threads, and OpenCV's face detector stands only one.
        self._lock = threading.Lock()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Render every image at every age.

        Args:
            context: Of MLflow.
            model_input: Column `image`: the bytes of a JPEG, PNG or WebP file.
            params: `ages`: ages in years, 0 to 100; empty: the model's anchors. `aligned`: the
                images are aligned faces (the default); otherwise the face is found, as FFHQ does
                it. `face`: of several faces that are found `largest`, or the number of one; `only`
                refuses to choose.

        Returns:
            A row per image and age: `image_index`, `age_years`, `image` (PNG bytes). All ages of
            the first image come first, in the order asked for, then those of the next.

        Raises:
            Refusal: An image cannot be read or shows no face, or an age lies outside 0 to
                100. It says which and what was expected; a server answers with status 400.
        """
        asked = params or {}
        try:
            with self._lock:
                return self._render(model_input["image"], asked)
        except DataError as error:
            raise Refusal(str(error)) from error

    def _render(self, images: pd.Series, asked: dict[str, Any]) -> pd.DataFrame:
        from agetf_pipeline.data.images import resize_rgb

        ages = [float(age) for age in asked.get("ages", [])]
        ages = ages or [float(age) for age in self._renderer.settings.anchors_years]
        if len(ages) > _MAX_AGES:
            raise DataError(
                f"Expected at most {_MAX_AGES} ages; found {len(ages)}. Ask more than once."
            )
        if len(ages) * len(images) > _MAX_RENDERINGS:
            raise DataError(
                f"Expected at most {_MAX_RENDERINGS} renderings; found {len(images)} pictures at "
                f"{len(ages)} ages. Ask more than once."
            )
        aligned, choice = bool(asked.get("aligned", True)), str(asked.get("face", "only"))
        # All are read before any is rendered: a bad one is said at once. Of a large photograph
        # only its small face stays in memory.
        faces = [
            resize_rgb(_face(data, index, aligned, choice), self._renderer.size_px)
            for index, data in enumerate(pictures_of(images))
        ]
        rows = []
        for index, face in enumerate(faces):
            renderings = self._renderer.render(face[None], ages)[0]
            for age, image in zip(ages, renderings, strict=True):
                rows.append((index, age, _encode(image)))
        return pd.DataFrame(rows, columns=_COLUMNS)


def _face(data: bytes, index: int, aligned: bool, choice: str) -> np.ndarray:
    """Return the face in an image's bytes, uint8 (H, H, 3), RGB."""
    from agetf_pipeline.data.photos import face_of_photo
    from agetf_pipeline.data.probe import Limits, Rejection, probe

    if choice not in ("only", "largest") and not choice.isdecimal():
        raise DataError(
            f"Expected the param face to be only, largest or a number from 1; found {choice!r}."
        )
    probed = probe(data, Limits())
    if isinstance(probed, Rejection):
        raise DataError(
            f"Expected the bytes of a JPEG, PNG or WebP file in image {index} (base64 over HTTP); "
            f"found {len(data)} bytes: {probed.detail}"
        )
    try:
        which = int(choice) if choice.isdecimal() else choice
        return face_of_photo(probed[1], aligned, which).rgb  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(
            f"Image {index}: {error} (Of this model these are the params aligned and face.)"
        ) from error


def _encode(image: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


set_model(AgeTransformerModel())
