"""What must hold of a model before others rely on it, and of a release before others get it."""

import json
import logging
from pathlib import Path
from typing import Any

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_file, read_checksums
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.quality.records import keep_result
from agetf_pipeline.quality.rule import Rule
from agetf_pipeline.quality.suites import judge
from agetf_pipeline.quality.verdict import SuiteResult, Verdict, statement

_CHECKSUMS, _CROISSANT = "checksums.sha256", "croissant.json"

FILE_RULES: tuple[Rule, ...] = (
    Rule("listed", f"Every file is listed in {_CHECKSUMS}", ~pl.col("listed")),
    Rule("there", "Every listed file is there", ~pl.col("there")),
    Rule("unchanged", "Every file has its checksum", pl.col("sha256") != pl.col("told_sha256")),
)


def check_evaluation(config: PipelineConfig, workspace: Workspace, name: str) -> SuiteResult:
    """Judge metrics.json of the configured run: its statements, and that no figure is invented.

    A statement that does not hold asks a person to look: whether a version becomes the champion is
    decided where it is registered. A figure without a reason or a sample size blocks.
    """
    path = _run_file(config, workspace, "metrics.json")
    metrics = read_json(path)
    figures = [
        {"figure": key, "value": None if f["value"] is None else float(f["value"]),
         "n": f.get("n"), "reason": f.get("reason")}
        for key, f in _figures(metrics["metrics"], "")
    ]  # fmt: skip
    frame = pl.DataFrame(
        figures,
        schema={"figure": pl.String, "value": pl.Float64, "n": pl.Int64, "reason": pl.String},
    )
    rules = (
        Rule(
            "missing_explained",
            "A figure that could not be measured says why",
            pl.col("value").is_null() & pl.col("reason").is_null(),
        ),
        Rule("finite", "Figures are finite", ~pl.col("value").is_finite()),
        Rule("sample_size", "A figure has its sample size", pl.col("n") <= 0,
             applies=pl.col("value").is_not_null()),
    )  # fmt: skip
    judged = judge("metrics.json", frame, rules)
    statements = tuple(
        statement(item["name"], item["text"], item["verdict"] != "does not hold",
                  f"{item['verdict']}: {item['detail']}")
        for item in metrics["must_hold"]
    )  # fmt: skip
    result = SuiteResult("metrics.json", frame.height, (*judged.verdicts, *statements))
    keep_result(workspace, name, result, [path])
    return result


def _figures(value: Any, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        return []
    if "value" in value and "n" in value:
        return [(prefix, value)]
    return [
        found
        for key, inner in value.items()
        for found in _figures(inner, f"{prefix}/{key}" if prefix else key)
    ]


def check_promotion(config: PipelineConfig, workspace: Workspace, name: str) -> SuiteResult:
    """Say of each registered model whether it is the champion, and which gate kept it from it."""
    path = _run_file(config, workspace, "registration.json")
    record = read_json(path)
    models = [record] if record["mixture"] is None else [record, record["mixture"]]
    verdicts: list[Verdict] = []
    for model in models:
        uri = model["model"]
        short = uri.removeprefix("models:/").partition("/")[0]
        verdicts.append(
            statement(f"{short}/champion", f"{uri} is the champion", model["champion"],
                      "; ".join(model["reasons"]) or "no reason is recorded")
        )  # fmt: skip
        verdicts += [
            statement(f"{short}/{gate['figure']}", f"{uri}: gate {gate['figure']}",
                      not gate["closes"], f"{gate['verdict']}: {gate['reason']}")
            for gate in model["gates"]
        ]  # fmt: skip
    result = SuiteResult("registration.json", len(models), tuple(verdicts))
    keep_result(workspace, name, result, [path])
    return result


def check_release(config: PipelineConfig, workspace: Workspace, name: str) -> SuiteResult:
    """Verify every checksum of the release, that nothing is unlisted, and its Croissant metadata.

    Raises:
        DataError: There is no list of checksums.
    """
    folder = workspace.root / "outputs" / "release" / config.release.version
    checksums = folder / _CHECKSUMS
    if not checksums.is_file():
        raise DataError(
            f"Expected {checksums}; found nothing. Run the stage release, which writes it last."
        )
    told = read_checksums(checksums)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != checksums
    }
    rows = [
        {"file": file, "listed": file in told, "there": file in files,
         "told_sha256": told.get(file),
         "sha256": hash_file(files[file]) if file in files else None}
        for file in sorted({*told, *files})
    ]  # fmt: skip
    kinds = {"file": pl.String, "listed": pl.Boolean, "there": pl.Boolean,
             "told_sha256": pl.String, "sha256": pl.String}  # fmt: skip
    judged = judge("release", pl.DataFrame(rows, schema=kinds), FILE_RULES)
    errors, wishes = _read_croissant(folder / _CROISSANT)
    croissant = statement(
        "croissant_valid", "The Croissant metadata is valid", not errors,
        "; ".join(errors) or "mlcroissant reads it and complains of nothing", "critical",
    )  # fmt: skip
    verdicts = (*judged.verdicts, croissant)
    result = SuiteResult("release", len(rows), verdicts, notes=tuple(wishes))
    keep_result(workspace, name, result, [checksums, *files.values()])
    return result


def _read_croissant(path: Path) -> tuple[list[str], list[str]]:
    """Return what mlcroissant holds against a file, and what it would like to see in it."""
    if not path.is_file():
        return [f"there is no {path.name}"], []
    import mlcroissant

    # It logs what it would like to see; here that becomes a note of the check.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        issues = mlcroissant.Dataset(jsonld=document).metadata.issues
    except (mlcroissant.ValidationError, ValueError) as error:
        return [str(error)], []
    finally:
        logger.setLevel(level)
    return sorted(issues.errors), sorted(issues.warnings)


def _run_file(config: PipelineConfig, workspace: Workspace, name: str) -> Path:
    path = workspace.experiments / config.train.run_name / name
    if not path.is_file():
        raise DataError(
            f"Expected {path} of run '{config.train.run_name}'; found nothing. Run the stage that "
            "writes it first: evaluate for metrics.json, register for registration.json."
        )
    return path
