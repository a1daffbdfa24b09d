"""Measure labels, enhancement and renderings; write the run's report.

Nothing measured here goes back into training: the evaluators and the truth of a synthetic corpus
are read by this stage alone. Where the registry has a champion, it renders the same faces for the
same judges: what decides about promotion are differences face by face.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, LABELS, PREDICTIONS, TRAINING_MANIFEST
from agetf_pipeline.data.tables import list_partitions, read_table, table_hashes, write_parquet
from agetf_pipeline.stages.base import StageReport, load_report, run_once

if TYPE_CHECKING:
    from agetf_pipeline.registry.reference import Reference

STAGE = "evaluate"
CODE_VERSION = "4"

_FIGURES = (
    "labels/mae_years/mixture",
    "labels/mae_years/group_midpoints",
    "labels/mae_ratio_to_best_expert",
    "labels/interval_coverage",
    "enhancement/psnr/gain",
    "enhancement/ssim/gain",
    "renderings/age_spearman",
    "renderings/age_mae_years",
    "renderings/mixture_age_mae_years",
    "renderings/id_similarity",
    "renderings/verification_rate",
    "real/genuine_rate",
    "renderings/attributes_kept",
    "renderings/face_found_rate",
    "real/age_estimator_mae_years",
    "against_champion/age_mae_years",
    "against_champion/id_similarity",
)


def model_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the weights of the configured training run."""
    return workspace.models / "age_transformer" / config.train.run_name / "weights.safetensors"


def run_folder(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the folder of the configured training run's reports."""
    return workspace.experiments / config.train.run_name


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Evaluate the configured run and write `outputs/experiments/<run_name>/`."""
    weights = model_path(config, workspace)
    if not weights.is_file():
        raise StageError(
            f"Expected trained weights at {weights}; found nothing. Run the stage train first."
        )
    reference = _reference(config, workspace, weights)
    champion = None if reference is None else reference.identity
    versions = _versions(config, workspace, weights, champion)
    settings, inputs = _asked(config, workspace, versions)
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _evaluate(config, workspace, weights, reference, versions),
    )  # fmt: skip


def is_current(config: PipelineConfig, workspace: Workspace) -> bool:
    """Whether the last report measured this model, champion, judges and tables, as configured.

    Looks at hashes alone: no network is loaded, no champion fetched.

    Raises:
        StageError: The registry does not answer.
        WeightsError: See `identity_to_compare`.
    """
    from agetf_pipeline.registry.reference import identity_to_compare

    weights, report = model_path(config, workspace), load_report(workspace, STAGE)
    if report is None or not weights.is_file():
        return False
    champion = None
    if config.evaluate.compare_with_champion:
        champion = identity_to_compare(config, workspace, hash_file(weights))
    versions = _versions(config, workspace, weights, champion)
    settings, inputs = _asked(config, workspace, versions)
    there = all(workspace.resolve(output).exists() for output in report.outputs.values())
    return there and report.data_version == fingerprint(settings, CODE_VERSION, inputs)


def _asked(
    config: PipelineConfig, workspace: Workspace, versions: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings and the content hashes that the report depends on."""
    from agetf_pipeline.evaluation.truth import truth_hashes

    caf = [name for name in list_partitions(workspace, ENHANCED) if is_caf(name)]
    inputs = {
        **versions,
        **table_hashes(workspace, TRAINING_MANIFEST),
        **table_hashes(workspace, ENHANCED, caf),
        **table_hashes(workspace, IMAGES),
        **truth_hashes(workspace),
    }
    for spec in (LABELS, PREDICTIONS):
        inputs |= table_hashes(workspace, spec, [FFHQ_PARTITION])
    section = config.evaluate.settings()
    for weights_of_others in ("inception_weights", "alexnet_weights"):
        section.pop(weights_of_others)  # where they lie does not matter, only what they are
    settings = {
        **section,
        "run_name": config.train.run_name,
        "synthetic": config.synthesize.enabled,
    }
    return settings, inputs


def _reference(config: PipelineConfig, workspace: Workspace, weights: Path) -> "Reference | None":
    """Return the registered version that the model is compared with, None where there is none."""
    from agetf_pipeline.registry.reference import champion_to_compare

    if not config.evaluate.compare_with_champion:
        return None
    return champion_to_compare(config, workspace, hash_file(weights))


def _versions(
    config: PipelineConfig, workspace: Workspace, weights: Path, champion: str | None
) -> dict[str, str]:
    """Return content hashes of everything that was trained, as far as it exists."""
    from agetf_pipeline.evaluation.panel_loading import panel_hashes

    versions = {"age_transformer": hash_file(weights)}
    versions |= {f"judge: {name}": sha for name, sha in panel_hashes(config, workspace).items()}
    if champion is not None:
        versions["champion"] = champion
    return versions


def _evaluate(
    config: PipelineConfig,
    workspace: Workspace,
    weights: Path,
    reference: "Reference | None",
    versions: dict[str, str],
) -> StageReport:
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.core.statistics import Sampling
    from agetf_pipeline.evaluation import measuring, measuring_renderings
    from agetf_pipeline.evaluation.must_hold import judge
    from agetf_pipeline.evaluation.panel_loading import load_panel
    from agetf_pipeline.evaluation.truth import load_truth

    set_num_threads(config.runtime.num_threads)
    settings = config.evaluate
    synthetic = config.synthesize.enabled
    sampling = Sampling(
        settings.num_bootstrap, settings.interval_level, settings.min_cell, settings.seed, synthetic
    )
    findings = measuring.Findings(run_folder(config, workspace), sampling)
    findings.folder.mkdir(parents=True, exist_ok=True)
    truth = load_truth(workspace)
    sources = measuring_renderings.Sources(
        workspace, read_table(workspace, TRAINING_MANIFEST), read_table(workspace, IMAGES), truth
    )

    champion = None
    if reference is not None:
        name = f"champion, version {reference.version}"
        theirs = Renderer.load(reference.weights, config.runtime.device)
        champion = measuring_renderings.Model(theirs, theirs.size_px, name)
    ours = Renderer.load(weights, config.runtime.device)
    tested = measuring_renderings.Model(ours, ours.size_px, config.train.run_name)
    anchors = tuple(float(age) for age in ours.settings.anchors_years)
    panel = load_panel(config, workspace)
    measuring_renderings.add_renderings(
        findings, sources, tested, champion, anchors, panel, settings
    )
    measuring.add_labels(findings, workspace, truth)
    measuring.add_enhancement(findings, workspace, truth, panel)
    statements = judge(findings.measures, settings)
    return _write(config, workspace, findings, statements, anchors, reference, versions)


def _write(
    config: PipelineConfig, workspace: Workspace, findings, statements, anchors, reference, versions
) -> StageReport:
    """Write metrics, per-image table and report; return the stage's report."""
    import polars as pl

    from agetf_pipeline.evaluation.measuring import PER_IMAGE_SCHEMA
    from agetf_pipeline.evaluation.report import build_sections, write_report
    from agetf_pipeline.evaluation.summary import summarise

    folder, measures = findings.folder, findings.measures
    synthetic = config.synthesize.enabled
    versions = {
        **versions,
        "evaluation code": CODE_VERSION,
        "interval level": f"{config.evaluate.interval_level:g}",
    }
    write_json(
        folder / "metrics.json",
        {
            "run_name": config.train.run_name,
            "synthetic": synthetic,
            "champion": None
            if reference is None
            else {
                "model": reference.model,
                "version": reference.version,
                "weights_sha256": reference.sha256,
            },
            "sampling": {
                "level": config.evaluate.interval_level,
                "num_bootstrap": config.evaluate.num_bootstrap,
                "min_cell": config.evaluate.min_cell,
            },
            "label_versions": findings.label_versions,
            "must_hold": [statement.as_dict() for statement in statements],
            "metrics": {name: item.as_dict() for name, item in measures.items()},
            "versions": versions,
        },
    )
    empty = pl.DataFrame(schema=PER_IMAGE_SCHEMA)
    per_image = pl.concat([empty, *findings.per_image]).sort("kind", "image_id", "target_age_years")
    write_parquet(folder / "per_image.parquet", per_image.to_arrow())
    write_report(
        folder,
        f"Evaluation of {config.train.run_name}",
        summarise(measures, statements, synthetic),
        statements,
        build_sections(
            measures,
            findings.pictures,
            anchors,
            None if reference is None else f"The champion (version {reference.version})",
        ),
        versions,
        synthetic,
    )
    files = ["metrics.json", "per_image.parquet", "report.html", "report.md"]
    files += [picture.file for picture in findings.pictures.values()]
    messages = [
        f"'{item.text}' {item.verdict}: {item.detail}" for item in statements if not item.holds
    ]
    figures = {name: measures[name].value if name in measures else None for name in _FIGURES}
    return StageReport(
        STAGE,
        counts={
            "num_figures": len(measures),
            "num_not_computed": sum(item.value is None for item in measures.values()),
            "num_must_hold": sum(item.holds is True for item in statements),
        },
        figures=figures,
        outputs={name: workspace.relative(folder / name)
                 for name in files},
        messages=messages,
    )  # fmt: skip
