"""Addresses of shared storage: `s3://bucket/faces`, `gs://...`, `file:///mnt/share`.

They say where files come from or go to, not what these are: no fingerprint and no run folder holds
them (`exclude`).
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from agetf_pipeline.core.secrets import holds_credentials

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://(.*)$")
_LOCAL = ("file", "local")


def _is_a_folder_address(uri: str) -> str:
    found = _SCHEME.match(uri)
    if found is None or "::" in uri:
        raise ValueError(
            "expected a URI such as s3://bucket/folder, gs://bucket/folder or file:///mnt/folder"
        )
    scheme, rest = found.groups()
    if scheme in _LOCAL and not rest.startswith("/"):
        raise ValueError(f"expected an absolute path after {scheme}://, as in file:///mnt/folder")
    if ":" in rest.split("/")[0].rpartition("@")[0] or holds_credentials(uri):
        # The configuration is read by many; where the backend looks for secrets, few can read.
        raise ValueError(
            "expected a URI without a password, key or signature; credentials come from the "
            "environment variables that the backend reads (docs/deployment.md)"
        )
    return uri.rstrip("/") if rest.strip("/") else uri


def _has_no_credentials(uri: str) -> str:
    if holds_credentials(uri):
        raise ValueError(
            "expected the address of a tracking server or database without a password: it would "
            "stand in every run folder. MLflow reads MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, from the environment, and "
            "PostgreSQL PGPASSWORD or ~/.pgpass (docs/security.md)"
        )
    return uri


TrackingUri = Annotated[str, AfterValidator(_has_no_credentials)]
StorageUri = Annotated[str, AfterValidator(_is_a_folder_address)]
