from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import synthesize


def _config(**values):
    sizes = {"size_px": 64, "num_ffhq_images": 5, "num_caf_shards": 1}
    return PipelineConfig.model_validate(
        {"synthesize": {**sizes, "num_subjects_per_shard": 2, "num_ages_per_subject": 2, **values}}
    )


def test_the_stage_writes_skips_and_mends(tmp_path):
    workspace, config = Workspace(tmp_path), _config(enabled=True)
    report = synthesize.run(config, workspace)
    assert report.status == "ran"
    assert report.counts["ffhq_images"] == 5
    assert report.counts["caf_images"] == 4
    assert all(workspace.resolve(path).exists() for path in report.outputs.values())
    assert synthesize.run(config, workspace).status == "skipped"
    next((workspace.raw_caf / "shard-0000").glob("subject*")).unlink()
    assert synthesize.run(config, workspace).status == "ran"
    assert synthesize.run(config, workspace).status == "skipped"


def test_a_workspace_of_real_photographs_is_left_alone(tmp_path):
    report = synthesize.run(_config(enabled=False), Workspace(tmp_path))
    assert report.status == "skipped"
    assert report.messages
    assert not list(tmp_path.iterdir())
