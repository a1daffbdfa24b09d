"""What the network behind a version of captions was trained on, noted when it wrote them."""

import json
from pathlib import Path

from agetf_pipeline.captions.versions import cache_folder
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.workspace import Workspace


def configured_origin(config: PipelineConfig, workspace: Workspace) -> str:
    """Return what the configured Janus was trained on, without loading it.

    Returns:
        What its card says; "unknown" where the card does not say; "published" for a checkpoint
        that was not trained here.

    Raises:
        ConfigError: No expert `janus` is configured.
    """
    from agetf_pipeline.core.weights import read_card
    from agetf_pipeline.experts.janus import janus_folder
    from agetf_pipeline.experts.janus_files import TRAINED_HERE

    weights = janus_folder(config, workspace) / TRAINED_HERE
    if not weights.is_file():
        return "published"
    return str(read_card(weights).get("trained_on", "unknown"))


def record_origin(workspace: Workspace, model_version: str, trained_on: str) -> None:
    """Note what a network was trained on, for pages that are made without it."""
    if recorded_origin(workspace, model_version) != trained_on:
        write_json(origin_path(workspace, model_version), {"trained_on": trained_on})


def recorded_origin(workspace: Workspace, model_version: str) -> str | None:
    """Return what a network was trained on; None where that was not noted."""
    try:
        noted = json.loads(origin_path(workspace, model_version).read_text("utf-8"))
        return str(noted["trained_on"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a note for people: without it, the page says that it is not known


def origin_path(workspace: Workspace, model_version: str) -> Path:
    """Return the file of the note."""
    return cache_folder(workspace) / "models" / f"{model_version}.json"


def warning_of(trained_on: str | None) -> str | None:
    """Return what must be said loudly of captions by such a network; None: nothing."""
    said = (trained_on or "unknown").casefold()
    if "random" in said or "untrained" in said:
        return "Random weights: nobody trained this network, and its captions mean nothing."
    if "synthetic" in said:
        return (
            "The network was trained on drawn (synthetic) faces: these captions show how the "
            "pipeline works, not what a published Janus says of photographs."
        )
    if said == "unknown":
        return "What the network was trained on is not recorded: trust these captions accordingly."
    return None
