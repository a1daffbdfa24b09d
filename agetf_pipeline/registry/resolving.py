"""From what a person types to the weights file that is meant."""

from pathlib import Path

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.workspace import Workspace


def resolve_model(
    source: str | Path, workspace: Workspace | None = None, tracking_uri: str | None = None
) -> Path:
    """Return the weights file that a path or a `models:/` URI names.

    Args:
        source: A weights file, a run's folder with `weights.safetensors`, or
            `models:/<name>@<alias>` or `models:/<name>/<version>`.
        workspace: Whose `mlflow.db` is asked; needed for a URI without `tracking_uri`.
        tracking_uri: Registry to ask instead.

    Raises:
        WeightsError: There is no such file, or no such model, version or alias.
    """
    if str(source).startswith("models:/"):
        return _from_registry(str(source), workspace, tracking_uri)
    path = Path(source)
    file = path / "weights.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(
            f"Expected a weights file at {file}; found nothing. Give "
            "models/age_transformer/<run>/weights.safetensors or models:/age-transformer@champion."
        )
    return file


def _from_registry(uri: str, workspace: Workspace | None, tracking_uri: str | None) -> Path:
    from agetf_pipeline.registry.tracking import connected, import_mlflow, tracking_uri_of
    from agetf_pipeline.registry.versions import weights_in

    if tracking_uri is None:
        if workspace is None:
            raise WeightsError(
                f"Expected to know which registry holds {uri}; found neither a workspace nor a "
                "tracking URI. Give a config, or a path to a weights file."
            )
        database = workspace.root / "mlflow.db"
        if not database.is_file():
            raise WeightsError(
                f"Expected the registry at {database}; found nothing. Run the stage register "
                "first, or give a path to a weights file."
            )
        tracking_uri = tracking_uri_of(workspace)
    mlflow = import_mlflow()
    with connected(tracking_uri):
        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except mlflow.exceptions.MlflowException as error:
            raise WeightsError(
                f"Expected {uri} in the registry {tracking_uri}; found: {error.message}. "
                "See agetf registry list, or run the stage register."
            ) from error
    file = weights_in(folder)
    if file is None:
        raise WeightsError(
            f"Expected one weights file in {uri}; found none or several under {folder}. "
            "It was not registered by the stage register."
        )
    return file
