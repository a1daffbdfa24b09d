"""Schedules: when they run, what their runs are tagged with, and why they skip."""

import functools
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from agetf_pipeline.commands import reevaluation
from agetf_pipeline.commands.reevaluation import Reevaluation
from agetf_pipeline.core.errors import StageError
from jobs.overlap import overlap, refuse_overlap, run_tags
from resources.pipeline import PipelineResource

REPOSITORY = Path(__file__).resolve().parents[2]
SUNDAY = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def instance_on_disk():
    """A tick opens the instance again: one in memory would not be found."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def instance(instance_on_disk):
    yield instance_on_disk
    for run_id in instance_on_disk.get_run_ids():
        instance_on_disk.delete_run(run_id)


@pytest.fixture
def memory():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@functools.cache
def repository() -> dg.RepositoryDefinition:
    from definitions import defs

    return defs.get_repository_def()


def tick(instance, name: str):
    """Evaluate a schedule as the daemon does."""
    repo = repository()
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=SUNDAY,
        repository_def=repo,
        resources={"pipeline": PipelineResource()},
    )
    with context:
        return repo.get_schedule_def(name).evaluate_tick(context)


def begin(instance, job: str, status=dg.DagsterRunStatus.STARTED, **tags) -> str:
    definition = repository().get_job(job)
    return instance.create_run_for_job(
        definition, status=status, tags={**definition.run_tags, **tags}
    ).run_id


def plan(monkeypatch, run_name: str | None, reason: str = "for a reason") -> None:
    answer = Reevaluation(run_name, reason)
    monkeypatch.setattr(reevaluation, "plan_reevaluation", lambda *_: answer)


def test_when_they_run():
    found = {s.name: (s.cron_schedule, s.execution_timezone) for s in repository().schedule_defs}
    assert found == {
        "weekly_relabel": ("0 3 * * 0", "UTC"),
        "nightly_evaluation": ("0 1 * * *", "UTC"),
        "nightly_removal": ("0 5 * * *", "UTC"),
        "quarter_hourly_pull": ("*/15 * * * *", "UTC"),
    }


def test_the_time_zone_is_the_deployments():
    def timezone(name: str) -> subprocess.CompletedProcess:
        code = "from jobs.schedules import weekly_relabel as s; print(s.execution_timezone)"
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=REPOSITORY, env=os.environ | {"AGETF_TIMEZONE": name},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert timezone("Europe/Berlin").stdout.strip() == "Europe/Berlin"
    assert "Expected a time zone in AGETF_TIMEZONE" in timezone("Mars/Olympus").stderr


def test_relabelling_runs_with_its_tags(instance):
    request = tick(instance, "weekly_relabel").run_requests[0]
    assert request.tags["agetf/trigger"] == "schedule"
    assert request.tags["agetf/config"] == "configs/demo.yaml"
    assert repository().get_job("relabel").run_tags["agetf/exclusive"] == "relabel"
    assert request.tags["dagster/schedule_name"] == "weekly_relabel"


@pytest.mark.parametrize(
    "status",
    [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING],
)
@pytest.mark.parametrize("name", ["weekly_relabel", "nightly_evaluation"])
def test_a_tick_skips_while_its_job_is_in_progress(instance, monkeypatch, name, status):
    plan(monkeypatch, "demo")
    job = {"weekly_relabel": "relabel", "nightly_evaluation": "evaluation"}[name]
    begin(instance, "evaluation" if job == "relabel" else "relabel", status)  # another job's
    assert tick(instance, name).run_requests
    run_id = begin(instance, job, status, **run_tags("sensor"))
    result = tick(instance, name)
    assert not result.run_requests
    assert f"Run {run_id[:8]} of the job '{job}' is in progress" in result.skip_message
    assert "launched by sensor" in result.skip_message
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert tick(instance, name).run_requests


def test_the_nightly_evaluation_says_why_there_is_nothing_to_do(instance, monkeypatch):
    plan(monkeypatch, None, "Nothing changed.")
    result = tick(instance, "nightly_evaluation")
    assert not result.run_requests
    assert result.skip_message == "Nothing changed."


def test_the_nightly_evaluation_is_of_the_configured_run_or_else_of_the_champions(
    instance, monkeypatch
):
    plan(monkeypatch, "demo")
    request = tick(instance, "nightly_evaluation").run_requests[0]
    assert request.tags["agetf/run_name"] == "demo"
    assert not request.run_config
    plan(monkeypatch, "run-7")
    request = tick(instance, "nightly_evaluation").run_requests[0]
    assert request.tags["agetf/run_name"] == "run-7"
    overrides = request.run_config["resources"]["pipeline"]["config"]["overrides"]
    assert overrides == ["train.run_name=run-7"]
    config, _ = PipelineResource(overrides=overrides).load()
    assert config.train.run_name == "run-7"


@pytest.mark.parametrize("job", ["relabel", "evaluation", "pipeline", "corpus"])
def test_what_is_launched_by_hand_meanwhile_waits_in_the_queue(memory, job):
    from dagster._utils.tags import TagConcurrencyLimitsCounter

    settings = yaml.safe_load((REPOSITORY / "configs" / "dagster.yaml").read_text())
    limits = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    queued = memory.get_run_by_id(begin(memory, job, dg.DagsterRunStatus.NOT_STARTED))

    def blocked() -> bool:
        running = memory.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        return TagConcurrencyLimitsCounter(limits, running).is_blocked(queued)

    other = "relabel" if job != "relabel" else "evaluation"
    begin(memory, other)
    begin(memory, "caf_shard")
    assert not blocked()
    begin(memory, job)
    assert blocked()


def test_a_terminal_leaves_a_job_alone_that_is_in_progress(memory):
    assert overlap(memory, "pipeline") is None
    refuse_overlap(memory, "pipeline")
    begin(memory, "pipeline")
    with pytest.raises(StageError, match="launched by hand"):
        refuse_overlap(memory, "pipeline")


def test_labels_and_model_show_how_fresh_they_are():
    from definitions import defs

    windows = {
        spec.key.to_user_string(): spec.freshness_policy.fail_window.to_timedelta().days
        for spec in defs.resolve_all_asset_specs()
        if spec.freshness_policy is not None
    }
    assert windows == {"moe_labels": 15, "age_transformer": 180, "registered_model": 180}
    settings = yaml.safe_load((REPOSITORY / "configs" / "dagster.yaml").read_text())
    assert settings["freshness"]["enabled"]
