"""What a person wants to know when the main job has ended: what was measured, and where it lies."""

import json
import os
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace


def print_summary(config: PipelineConfig, workspace: Workspace, duration_s: float) -> None:
    """Print the places of the grid, the report, the labels and the model, and the verdicts."""
    run = workspace.experiments / config.train.run_name
    metrics_file = run / "metrics.json"
    places = {
        "grid": run / "grid.png",
        "report": run / "report.html",
        "labels": workspace.processed / "ffhq_aging_moe_labels.csv",
        "label report": workspace.stats / "ffhq_aging_moe_report.csv",
        "enhanced": workspace.processed / "caf_enhanced",
        "release": workspace.root / "outputs" / "release",
    }
    lines = [f"Done in {duration_s / 60:.1f} min."]
    if metrics_file.is_file():
        lines += _verdicts(json.loads(metrics_file.read_text(encoding="utf-8")))
    for name, path in places.items():
        if path.exists():
            lines.append(f"  {name:<13} {os.path.relpath(path)}")
    lines += _models(run / "registration.json", config.register_model.model_name)
    print("\n" + "\n".join(lines))  # noqa: T201


def _models(registration: Path, name: str) -> list[str]:
    """Return where the model is in the registry, and where it is no champion, why."""
    if not registration.is_file():
        return []
    record = json.loads(registration.read_text(encoding="utf-8"))
    if record["champion"]:
        return [f"  {'model':<13} models:/{name}@champion (MLflow), {record['model']}"]
    why = "; ".join(record["reasons"])
    return [f"  {'model':<13} {record['model']} (MLflow), not the champion: {why}"]


def _verdicts(metrics: dict) -> list[str]:
    where = " (synthetic faces)" if metrics["synthetic"] else ""
    lines = [f"Measured{where}:"]
    for statement in metrics["must_hold"]:
        lines.append(f"  {statement['verdict']:<15} {statement['text']}")
        lines.append(f"  {'':<15} {statement['detail']}")
    return [*lines, "Where it lies:"]
