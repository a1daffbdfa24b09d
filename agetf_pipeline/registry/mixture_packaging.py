"""The mixture packed as an MLflow model: every expert's weights, the calibration, the settings.

What is logged is a small workspace: the files lie in it as `agetf estimate-age` looks for them, so
that the served mixture reads ages by the same code, and says the same.
"""

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.packaging import MODEL_ARTIFACT, PACKAGE, grey_png, requirements
from agetf_pipeline.registry.tracking import import_mlflow

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MIXTURE_ARTIFACT = "mixture"
CONFIG_FILE = "config.json"
CODE_VERSION = "1"

READING_FIELDS = ("kind", "size", "input_px", "profile", "face_crop", "precision", "answer")
"""Settings of an expert that decide what it reads; the others decided its weights."""
LABEL_FIELDS = (
    "min_experts", "interval_level", "review_below_reliability", "review_disagreement_years",
    "drop_below_reliability",
)  # fmt: skip
"""Settings of the mixture that decide a label; the others decided its calibration, or reports."""

_REQUIREMENTS = ("polars", "pyarrow", "pydantic", "pyyaml", "scipy", "torchvision")
_REQUIREMENTS_OF_KIND = {"janus": ("jinja2", "transformers"), "mivolo": ("timm",)}
_EXAMPLE_PX = 128


def mixture_fingerprint(config: PipelineConfig, workspace: Workspace) -> str | None:
    """Return the identity of the mixture: the same one labels the same picture the same.

    Args:
        config: Its experts, and the settings of its labels.
        workspace: Holds its weights and calibration.

    Returns:
        64 hexadecimal digits over the content of all weights and of the calibration, and the
        settings that decide a label; None where the config names no expert, or the calibration or
        an expert's weights are absent.
    """
    from agetf_pipeline.experts.load import weights_hash, weights_path
    from agetf_pipeline.moe import labels
    from agetf_pipeline.moe.calibration import calibration_path

    names = sorted(config.train_experts.experts)
    calibration = calibration_path(config.relabel, workspace)
    present = all(weights_path(config, workspace, name).exists() for name in names)
    if not names or not present or not calibration.is_file():
        return None
    inputs = {f"weights/{name}": weights_hash(config, workspace, name) for name in names}
    inputs["calibration"] = hash_file(calibration)
    settings = {
        "precision": config.runtime.precision,
        "batch_size": config.predict.batch_size,
        "relabel": _chosen(config.relabel, LABEL_FIELDS),
        "experts": {
            name: _chosen(expert, READING_FIELDS)
            for name, expert in config.train_experts.experts.items()
        },
    }
    return fingerprint(settings, f"{CODE_VERSION}/{labels.CODE_VERSION}", inputs)


def log_mixture(run_id: str, config: PipelineConfig, workspace: Workspace) -> str:
    """Log the mixture in a run of the connected tracking server.

    Args:
        run_id: The run.
        config: Its experts, and the settings of its labels.
        workspace: Holds its weights and calibration.

    Returns:
        The logged model's URI, which a registered version can be made from.

    Raises:
        WeightsError: An expert's weights are absent, or nothing vouches for them.
        DataError: The calibration is absent or damaged.
    """
    mlflow = import_mlflow()
    workspace.state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="mixture-", dir=workspace.state) as temporary:
        folder = Path(temporary) / MIXTURE_ARTIFACT
        pack_mixture(config, workspace, folder)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=MODEL_ARTIFACT,
                python_model=str(Path(__file__).with_name("mixture_pyfunc.py")),
                artifacts={MIXTURE_ARTIFACT: str(folder)},
                code_paths=[str(PACKAGE)],
                signature=signature(),
                input_example=input_example(),
                pip_requirements=requirements(_needed(config)),
            )
    return info.model_uri


def pack_mixture(config: PipelineConfig, workspace: Workspace, folder: Path) -> None:
    """Make a workspace of what the mixture needs; its files are links to the real ones, or copies.

    Raises:
        WeightsError: An expert's weights are absent, or nothing vouches for them.
        DataError: The calibration is absent or damaged.
    """
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.checkpoints.checksums import RECORD_FILE
    from agetf_pipeline.experts.load import weights_hash, weights_path
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration

    packed = Workspace(folder)
    calibration, record = packed.models / "moe" / "calibration.json", {}
    load_calibration(calibration_path(config.relabel, workspace)).save(calibration)
    experts = {}
    for name, expert in sorted(config.train_experts.experts.items()):
        weights_hash(config, workspace, name)  # says what is absent
        source = weights_path(config, workspace, name)
        require_verified(source, workspace, config.runtime)
        target = packed.models / "checkpoints" / name / ("" if source.is_dir() else source.name)
        _link(source, target)
        record |= _record(target, name, packed)
        weights = packed.relative(target)
        experts[name] = _chosen(expert, READING_FIELDS) | {"weights": weights}
    write_json(packed.models / "checkpoints" / RECORD_FILE, record)
    write_json(folder / CONFIG_FILE, _packed_config(config, experts, packed.relative(calibration)))


def signature() -> "ModelSignature":
    """Return the model's signature: `image` bytes in, an age with its doubts out."""
    import_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from agetf_pipeline.registry.mixture_columns import COLUMNS

    kinds = {"Int64": DataType.long, "Float64": DataType.double, "boolean": DataType.boolean,
             "object": DataType.string}  # fmt: skip
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(kinds[kind], name) for name, kind in COLUMNS.items()]),
        params=ParamSchema([ParamSpec("aligned", DataType.boolean, False)]),
    )


def input_example() -> Any:
    """Return an example of the input: a plain grey gradient, no face of anybody."""
    import pandas as pd

    return pd.DataFrame({"image": [grey_png(_EXAMPLE_PX)]}), {"aligned": True}


def _needed(config: PipelineConfig) -> list[str]:
    """Return the distributions that the configured experts import."""
    experts = config.train_experts.experts
    kinds = {expert.kind or name for name, expert in experts.items()}
    own = (_REQUIREMENTS_OF_KIND.get(kind, ()) for kind in sorted(kinds))
    return [*_REQUIREMENTS, *(name for names in own for name in names)]


def _packed_config(
    config: PipelineConfig, experts: dict[str, dict], calibration: str
) -> dict[str, Any]:
    """Return the settings that count, as a config whose root is the packed workspace."""
    return {
        "runtime": {
            # A GPU where there is one: the server is seldom the machine that trained.
            "device": "cpu" if config.runtime.device == "cpu" else "auto",
            "precision": config.runtime.precision,
        },
        "train_experts": {"enabled": False, "experts": experts},
        "predict": {"batch_size": config.predict.batch_size},
        "relabel": {**_chosen(config.relabel, LABEL_FIELDS), "calibration_path": calibration},
    }


def _chosen(section: ExpertConfig | RelabelConfig, fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in section.settings().items() if name in fields}


def _link(source: Path, target: Path) -> None:
    """Link a file, or every visible file of a folder: those are what its hash is made of.

    Hard links, since MLflow refuses symbolic ones that lead out of the folder; copies where the
    weights lie on another disk.
    """
    for path in _files(source):
        link = target / path.relative_to(source) if source.is_dir() else target
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.hardlink_to(path.resolve())
        except OSError:
            shutil.copyfile(path, link)


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    else:
        yield from sorted(path for path in source.rglob("[!.]*") if path.is_file())


def _record(target: Path, name: str, packed: Workspace) -> dict[str, Any]:
    """Return checksums of other people's weights: let in here, they are let in where they load."""
    from agetf_pipeline.checkpoints.checksums import Accepted
    from agetf_pipeline.checkpoints.verifying import LOADABLE_SUFFIXES, is_own_export

    files = list(_files(target))
    if any(is_own_export(path) for path in files):
        return {}
    folder = packed.models / "checkpoints"
    return {
        path.relative_to(folder).as_posix(): Accepted(
            sha256=hash_file(path),
            size_bytes=path.stat().st_size,
            how="imported",
            checkpoint=name,
            mismatch_accepted=True,
            recorded_on=datetime.date.today().isoformat(),
        ).model_dump()
        for path in files
        if target.is_file() or path.suffix in LOADABLE_SUFFIXES
    }
