"""What the tabs of the app share: the workspace, and networks that are loaded once."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.experts.estimate import AgeEstimator


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes:
        label: What a person reads.
        reference: What `Services.renderer` takes: `models:/<name>/<version>` or a weights file.
    """

    label: str
    reference: str


class Services:
    """The app's networks, tables and lock.

    Attributes:
        config: What the app was started with.
        workspace: Where it reads and writes.
        tracking_uri: The MLflow database or server.
        folder: A temporary folder of the app: deleted when it ends.
        lock: Held by whoever computes; two requests do not compute at once.
    """

    def __init__(
        self, config: PipelineConfig, workspace: Workspace, folder: Path, model: str | None = None
    ) -> None:
        """Take what the command line says; nothing is loaded yet.

        Args:
            config: The configuration.
            workspace: Its workspace.
            folder: A temporary folder, which the caller deletes.
            model: A weights file or `models:/` name to offer first; None: the champion, if any.
        """
        from agetf_pipeline.registry.tracking import tracking_uri_of

        self.config = config
        self.workspace = workspace
        self.folder = folder
        self.tracking_uri = tracking_uri_of(workspace, config.register_model.tracking_uri)
        # Reentrant: what computes calls `renderer` and `estimator`, which load under it.
        self.lock = threading.RLock()
        self._wanted = model
        self._renderers: dict[tuple[str, int], Renderer] = {}
        self._estimator: AgeEstimator | None = None

    def models(self) -> list[ModelChoice]:
        """Return the models there are: the one asked for, the registry's, those of runs."""
        choices = []
        if self._wanted is not None:
            choices.append(ModelChoice(self._wanted, self._wanted))
        choices += self._registered()
        for file in sorted(self.workspace.models.glob("age_transformer/*/weights.safetensors")):
            choices.append(ModelChoice(f"run {file.parent.name}", str(file)))
        seen: dict[str, ModelChoice] = {}
        for choice in choices:
            seen.setdefault(choice.reference, choice)
        return list(seen.values())

    def renderer(self, reference: str) -> "Renderer":
        """Return the renderer of a model; it is loaded once, and anew when its file changes.

        Raises:
            WeightsError: The model cannot be found or loaded.
        """
        from agetf_pipeline.age_transformer.renderer import Renderer
        from agetf_pipeline.registry import resolve_model

        with self.lock:
            key = (reference, 0)
            if not reference.startswith("models:/") or key not in self._renderers:
                # A version in the registry stays as it is; a file of a run is trained anew.
                file = resolve_model(reference, self.workspace, self.tracking_uri)
                if not reference.startswith("models:/"):
                    key = (reference, file.stat().st_mtime_ns)
                if key not in self._renderers:
                    # One model at a time: a large one takes gigabytes.
                    self._renderers.clear()
                    self._renderers[key] = Renderer.load(file, self.config.runtime.device)
            return self._renderers[key]

    def estimator(self) -> "AgeEstimator":
        """Return the experts and their mixture, loaded once.

        Raises:
            ConfigError: The config names no expert.
            WeightsError: Weights are absent, damaged, or of another architecture.
            DataError: The calibration is damaged.
        """
        from agetf_pipeline.experts.estimate import load_estimator

        with self.lock:
            if self._estimator is None:
                self._estimator = load_estimator(self.config, self.workspace)
            return self._estimator

    def _registered(self) -> list[ModelChoice]:
        """Return the registry's models that an alias points at; none where there is none yet."""
        from agetf_pipeline.core.errors import AgetfError
        from agetf_pipeline.registry.listing import list_versions
        from agetf_pipeline.registry.tracking import connected

        settings = self.config.register_model
        if settings.tracking_uri is None and not (self.workspace.root / "mlflow.db").is_file():
            return []
        try:
            with connected(self.tracking_uri) as client:
                versions = list_versions(client, settings.model_name)
        except AgetfError:
            return []  # no model yet, or a server that is away: there are the runs still
        aliased = [(alias, version) for version in versions for alias in version.aliases]
        aliased.sort(key=lambda pair: pair[0] != "champion")
        return [
            ModelChoice(
                f"{settings.model_name}@{alias} (version {version.version}, {version.run_name})",
                f"models:/{settings.model_name}/{version.version}",
            )
            for alias, version in aliased
        ]
