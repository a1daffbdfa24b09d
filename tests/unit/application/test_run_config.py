"""Run configuration can come from a browser: what it can set, and what it cannot."""

import dagster as dg
import pytest

from agetf_pipeline.core.errors import ConfigError
from definitions import defs
from resources.gpu import GpuResource
from resources.pipeline import REPOSITORY, PipelineResource

# Everything below `resources`, `execution` and `loggers` that a run may set.
_ALLOWED = {
    "resources.pipeline.config.config",
    "resources.pipeline.config.overrides",
    "resources.gpu_pool.config.num_devices",
    "resources.gpu_pool.config.lock_folder",
    "loggers.console.config.log_level",
    "loggers.console.config.name",
}


def leaves(field_type, prefix: str = "") -> set[str]:
    fields = getattr(field_type, "fields", None)
    if not fields:
        return {prefix}
    found: set[str] = set()
    for name, field in fields.items():
        found |= leaves(field.config_type, f"{prefix}.{name}".lstrip("."))
    return found


@pytest.mark.parametrize("job", [job.name for job in defs.resolve_all_job_defs()])
def test_a_run_sets_overrides_and_nothing_else_of_ours(job):
    definition = defs.resolve_job_def(job)
    schema = definition.run_config_schema.config_type
    settable = {
        name for name in leaves(schema)
        if name.startswith(("resources.", "loggers.")) and not name.endswith(".io_manager")
    }  # fmt: skip
    assert {name for name in settable if "io_manager.config." in name} == set()
    assert {name for name in settable if "io_manager" not in name} <= _ALLOWED


@pytest.mark.parametrize(
    "override",
    [
        "ingest.caf.path=/etc",
        "ingest.ffhq_aging.path=../../elsewhere",
        "train.anchors=/etc/passwd",
        "train.init_from=/root/x.safetensors",
        "train_experts.experts.vgg16.weights=/tmp/evil.pth",
        "train_experts={experts: {vgg16: {weights: /tmp/evil.pth}}}",
        "relabel.calibration_path=../../../etc/passwd",
        "evaluate.inception_weights=~/x.pth",
    ],
)
def test_a_path_leads_nowhere_outside(override):
    with pytest.raises(ConfigError, match="paths in the workspace or the repository"):
        PipelineResource(overrides=[override]).load()


@pytest.mark.parametrize(
    "override",
    [
        "register_model.tracking_uri=http://198.51.100.1:5000",
        "register_model={tracking_uri: 'sqlite:////tmp/other.db'}",
        "release.publish_uri=s3://elsewhere/faces",
        "release.url=https://elsewhere.example/faces",
        "release ={url: 'https://elsewhere.example/faces'}",
        "ingest.caf.source_uri=file:///etc",
    ],
)
def test_an_address_stays_as_the_deployment_set_it(override):
    with pytest.raises(ConfigError, match="addresses as they are"):
        PipelineResource(overrides=[override]).load()


@pytest.mark.parametrize(
    "override",
    [
        "train_experts.experts.vgg16.kind=os.path",
        "train_experts.experts.vgg16.kind=../evil",
        "train.run_name=..",
        "train.run_name=a/../../b",
        "release.version=../x",
        "register_model.model_name=..",
    ],
)
def test_no_name_is_a_module_or_a_path(override):
    with pytest.raises(ConfigError, match="pattern"):
        PipelineResource(overrides=[override]).load()


def test_a_run_may_set_what_else_the_section_has():
    overrides = ["runtime={num_threads: 1}"]
    config, _ = PipelineResource(config="configs/test.yaml", overrides=overrides).load()
    assert config.runtime.num_threads == 1
    assert not config.runtime.allow_unverified_weights


def test_a_section_laid_over_the_deployments_resets_nothing_of_it(tmp_path, monkeypatch):
    """The defaults, too, are another catalogue and another address than the deployment's."""
    path = tmp_path / "configs" / "own.yaml"
    path.parent.mkdir()
    path.write_text(
        "runtime: {models_catalogue: models.yaml}\n"
        "register_model: {tracking_uri: 'http://127.0.0.1:5000'}\n"
    )
    monkeypatch.setenv("AGETF_CONFIG", str(path))
    PipelineResource(overrides=["runtime.num_threads=1"]).load()
    with pytest.raises(ConfigError, match="verification of weights"):
        PipelineResource(overrides=["runtime=null", "runtime={num_threads: 1}"]).load()
    with pytest.raises(ConfigError, match="addresses as they are"):
        PipelineResource(overrides=["register_model=null", "register_model={}"]).load()


def test_what_a_run_is_for_still_works():
    overrides = ["train.lr=1e-4", "train.init_from=models/x.safetensors", "ingest.chunk_size=8"]
    config, workspace = PipelineResource(config="configs/test.yaml", overrides=overrides).load()
    assert config.ingest.chunk_size == 8
    assert config.train.init_from == REPOSITORY / "models" / "x.safetensors"
    assert workspace.root.is_relative_to(REPOSITORY)


def test_locks_are_made_in_no_other_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with (
        pytest.raises(ConfigError, match="AGETF_GPU_LOCKS"),
        GpuResource(num_devices=0, lock_folder="/etc/agetf").lease(),
    ):
        pass
    with GpuResource(num_devices=0, lock_folder=str(tmp_path / "locks")).lease() as device:
        assert device == "cpu"


def test_a_refused_password_is_not_repeated(tmp_path):
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        PipelineResource(
            overrides=["register_model.tracking_uri=http://me:s3cr3t@host:5000"]
        ).load()
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert isinstance(defs, dg.Definitions)
