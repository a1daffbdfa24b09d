"""What a served model is asked: pictures as bytes or base64; and refusals in plain words."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

MAX_REQUEST_BYTES = 512_000_000
"""Of all pictures of a request. The server has no limit of its own, and holds them all at once."""


class Refusal(MlflowException):
    """A request that cannot be answered, and why; a server answers with status 400.

    MLflow's server rewrites messages: it puts the request before them, pictures and all. Ours stays
    as it was said.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "message" or "message" not in self.__dict__:
            super().__setattr__(name, value)


def picture_bytes(value: Any) -> bytes:
    """Return the bytes of a picture; none for what holds none.

    Args:
        value: A file's bytes, or their base64. MLflow decodes base64 in the forms `dataframe_split`
            and `dataframe_records`, and hands it on as it came in `inputs` and `instances`.
    """
    if isinstance(value, str):
        value = value.encode("ascii", errors="replace")
    if not isinstance(value, bytes | bytearray | memoryview):
        return b""
    data = bytes(value)
    try:
        # No picture is valid base64: every format that is read begins with other bytes.
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data


def pictures_of(values: Iterable[Any]) -> list[bytes]:
    """Return the pictures of a request, see `picture_bytes`.

    Raises:
        Refusal: Together they have more than `MAX_REQUEST_BYTES`.
    """
    pictures, num_bytes = [], 0
    for value in values:
        num_bytes += len(value) if isinstance(value, str | bytes | bytearray | memoryview) else 0
        if num_bytes > MAX_REQUEST_BYTES:
            raise Refusal(
                f"Expected pictures of at most {MAX_REQUEST_BYTES} bytes in all; found more. Ask "
                "more than once."
            )
        pictures.append(picture_bytes(value))
    return pictures
