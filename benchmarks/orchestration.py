"""What Dagster costs: loading the code location, and each step over its stage's own work.

    python -m benchmarks.orchestration [--config FILE]

Loading is a process of its own that imports definitions.py and resolves the jobs, as the code
server does; beside it stands the same process importing Dagster alone, which is the floor.

An asset's overhead is the time between the first and the last event of its step, less the time that
its stage took; across processes less what the stage says in its report, so that the whole step is
overhead where it found nothing to do. A check's time is its
own work, shown as it is; the first one loads Great Expectations. Drawn, read and checked are the
faces of configs/test.yaml, once fresh and once more; across processes each step is forked from a
server that has loaded what takes long, and which the first step waits for. With --config, whose
workspace has to be complete, every asset of the main job is looked at too, in process. Times are
wall clock: on a machine that does other things they are upper bounds; take the ratios beside them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg

REPOSITORY = Path(__file__).resolve().parent.parent
MOST_LOAD_S = 5.0
MOST_OVERHEAD_S = 1.5
_CHEAP = ("synthetic_corpus", "ffhq_images")
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Step:
    """A step that ran: its key, wall clock, and what its stage worked (s); None for a check."""

    key: str
    wall_s: float
    work_s: float | None

    @property
    def overhead_s(self) -> float:
        """Seconds over its own work."""
        return self.wall_s - (self.work_s or 0.0)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, help="a config whose workspace is complete")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(REPOSITORY))
    os.chdir(REPOSITORY)
    _report_load()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        _use(_small_config(Path(folder)), home)
        from benchmarks import orchestration

        with dg.DagsterInstance.get() as instance:
            across = dg.reconstructable(orchestration.across_processes)
            for name, run in (
                ("in process", lambda: _run_in_process(cheap_job(), instance)),
                ("across processes", lambda: _run_across(across, instance)),
            ):
                print(f"{name}, nothing there yet")
                _report(run())
                print(f"{name}, nothing new")
                _report(run())
                _forget(Path(folder) / "workspace")
        if options.config is not None:
            from definitions import defs

            _use(options.config, Path(folder) / "other")
            with dg.DagsterInstance.get() as instance:
                print(f"in process, every asset of {options.config}, nothing new")
                tags = _prepare_shards(instance)
                job = defs.resolve_job_def("pipeline")
                _report(_run_in_process(job, instance, tags))


def _report_load() -> None:
    code = "import definitions as d; [j.name for j in d.defs.get_repository_def().get_all_jobs()]"
    for name, source in (("the code location", code), ("Dagster alone", "import dagster")):
        best_s = min(_seconds(lambda source=source: _python(source)) for _ in range(3))
        said = f" (at most {MOST_LOAD_S:g} wanted)" if source is code else ""
        print(f"loading {name}: {best_s:.2f} s{said}")


def _python(source: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", source]
    subprocess.run(command, check=True, cwd=REPOSITORY)


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _small_config(folder: Path) -> Path:
    path = folder / "test.yaml"
    root = folder / "workspace"
    path.write_text(
        f"extends: {REPOSITORY / 'configs' / 'test.yaml'}\nworkspace: {{root: {root}}}\n"
    )
    return path


def _use(config: Path, home: Path) -> None:
    from jobs.launch import prepare_home
    from resources.pipeline import CONFIG_VARIABLE

    os.environ[CONFIG_VARIABLE] = str(config.resolve())
    prepare_home(home)


def _forget(workspace: Path) -> None:
    import shutil

    shutil.rmtree(workspace)


def cheap_job() -> dg.JobDefinition:
    """Return a job of the assets that need no network."""
    return _job(dg.in_process_executor)


def across_processes() -> dg.JobDefinition:
    """Return the same job with a process for each step, forked from one that has loaded them."""
    from jobs.forking import forking_executor

    return _job(forking_executor(1))


def _job(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    from definitions import defs

    chosen = dg.AssetSelection.assets(*_CHEAP)
    job = dg.define_asset_job("cheap", selection=chosen, executor_def=executor)
    both = {"assets": defs.assets, "asset_checks": defs.asset_checks}
    return dg.Definitions(**both, resources=defs.resources, jobs=[job]).resolve_job_def("cheap")


def _prepare_shards(instance: dg.DagsterInstance) -> dict[str, str]:
    from agetf_pipeline.core.workspace import is_caf, shard_of
    from agetf_pipeline.data.corpora import discover_partitions
    from resources.pipeline import PipelineResource

    config, workspace = PipelineResource().load()
    shards = [shard_of(name) for name in discover_partitions(config, workspace) if is_caf(name)]
    if not shards:
        return {}
    instance.add_dynamic_partitions("caf_shards", shards)
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    return {start: shards[0], end: shards[-1]}


def _run_in_process(
    job: dg.JobDefinition, instance: dg.DagsterInstance, tags: dict[str, str] | None = None
) -> list[Step]:
    """Run a job; what a stage takes to see that nothing is new counts as its own work here."""
    from assets import running

    spans: list[tuple[float, float]] = []
    run_stage = running.run_stage

    def timed(*arguments: Any) -> Any:
        started_s = time.time()
        try:
            return run_stage(*arguments)
        finally:
            spans.append((started_s, time.time()))

    with mock.patch.object(running, "run_stage", timed):
        result = job.execute_in_process(
            instance=instance, run_config=_QUIET, tags=tags, raise_on_error=False
        )
    return _steps(instance, result.run_id, spans)


def _run_across(job: object, instance: dg.DagsterInstance) -> list[Step]:
    with dg.execute_job(job, instance, run_config=_QUIET) as result:  # type: ignore[arg-type]
        assert result.success
        return _steps(instance, result.run_id)


def _steps(
    instance: dg.DagsterInstance, run_id: str, spans: list[tuple[float, float]] | None = None
) -> list[Step]:
    """Return the steps of a run, from the first event of each to its last.

    Args:
        instance: Where the run is.
        run_id: The run.
        spans: When stages worked; None takes what they say in their reports.
    """
    times: dict[str, list[float]] = {}
    work: dict[str, float] = {}
    for record in instance.all_logs(run_id):
        event = record.dagster_event
        if event is None or event.step_key is None or event.event_type_value == "LOGS_CAPTURED":
            continue
        if "PLANNED" in event.event_type_value:
            continue
        times.setdefault(event.step_key, []).append(record.timestamp)
        if event.event_type_value == "ASSET_MATERIALIZATION":
            metadata = event.step_materialization_data.materialization.metadata
            ran = metadata.get("status", dg.TextMetadataValue("ran")).value == "ran"
            duration_s = float(metadata["duration_s"].value) if "duration_s" in metadata else 0.0
            work[event.step_key] = work.get(event.step_key, 0.0) + (duration_s if ran else 0.0)
    if spans is not None:
        for key in work:
            first, last = min(times[key]), max(times[key])
            work[key] = sum(end - start for start, end in spans if first <= start and end <= last)
    return [Step(key, max(at) - min(at), work.get(key)) for key, at in times.items()]


def _report(steps: list[Step]) -> None:
    for step in steps:
        if step.work_s is None:
            print(f"  {step.key:36s} {step.wall_s:6.2f} s, a check")
        else:
            print(f"  {step.key:36s} {step.wall_s:6.2f} s, worked {step.work_s:6.2f} s, over it "
                  f"{step.overhead_s:5.2f} s")  # fmt: skip
    assets = [step for step in steps if step.work_s is not None]
    most_s = max((step.overhead_s for step in assets), default=0.0)
    others_s = max((step.overhead_s for step in assets[1:]), default=0.0)
    total_s = sum(step.wall_s for step in assets)
    share = sum(step.overhead_s for step in assets) / total_s if total_s else 0.0
    print(f"  most over an asset's own work: {most_s:.2f} s (at most {MOST_OVERHEAD_S:g} wanted in "
          f"process), after the first {others_s:.2f} s; {share:.0%} of their time")  # fmt: skip


if __name__ == "__main__":
    main()
