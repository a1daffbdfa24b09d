"""Many CAF shards: what a sensor tick, a backfill and a query of the instance cost.

    python -m benchmarks.backfill [--num-shards 100] [--folder DIR]

Shards of one small picture each, so that what is measured is what surrounds the work. The backfill
is `make backfill SHARDS=missing` in a process of its own, over `caf_images` alone; meanwhile this
one asks the instance what a page of the UI asks: which partitions are materialised, the latest
runs, the latest events. The ceiling of the backfill is the same stage over the same shards without
Dagster. Ticks: with nothing known, with nothing new, with the ledger lost.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
from PIL import Image

from agetf_pipeline.core.workspace import Workspace

_REPOSITORY = Path(__file__).resolve().parents[1]
_ASSET = dg.AssetKey("caf_images")
_MAX_TICK_S = 2.0
_MAX_QUERY_S = 1.0


def main() -> None:
    """Measure, print a table, and fail where a tick or a query takes too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-shards", type=int, default=100)
    parser.add_argument("--ticks-only", action="store_true", help="of the sensor; no backfill")
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    options = parser.parse_args(sys.argv[1:] if __name__ == "__main__" else [])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _measure(Path(folder), options.num_shards, options.ticks_only)


def _measure(folder: Path, num_shards: int, ticks_only: bool) -> None:
    site, ceiling = folder / "site", folder / "ceiling"
    for root in (site, ceiling):
        for number in range(num_shards):
            _write_shard(Workspace(root), number)
    config = _write_config(folder, site)
    home = folder / "home"
    home.mkdir()
    shutil.copyfile(_REPOSITORY / "configs" / "dagster.yaml", home / "dagster.yaml")
    os.environ |= {"DAGSTER_HOME": str(home), "AGETF_CONFIG": str(config)}
    print(f"{num_shards} shards of one picture each")
    with dg.DagsterInstance.get() as instance:
        ticks = _time_ticks(instance, Workspace(site))
        if ticks_only:
            _print_ticks(ticks)
            return
        before = _time_queries(instance)
        wall_s, during = _time_backfill(instance, config, home)
        made = len(instance.get_materialized_partitions(_ASSET))
        if made != num_shards:
            raise SystemExit(f"expected {num_shards} shards to be materialised; found {made}")
        after = _time_queries(instance)
        ticks["tick, all materialised"] = _time(lambda: _tick(instance, None))
    ceiling_s = _time_without_dagster(_write_config(folder, ceiling), num_shards)
    for name, seconds in ticks.items():
        print(f"  {name:34} {seconds:8.2f} s")
    print(
        f"  {'stage without Dagster':34} {ceiling_s:8.1f} s  {ceiling_s / num_shards:.3f} s a shard"
    )
    print(
        f"  {'backfill':34} {wall_s:8.1f} s  {wall_s / num_shards:.3f} s a shard, "
        f"{wall_s / ceiling_s:.2f} times the stage's own"
    )
    for name in before:
        times = during[name]
        print(
            f"  {name:34} before {before[name]:.3f} s; during: median "
            f"{statistics.median(times):.3f}, 95% within {_p95(times):.3f}, worst {max(times):.3f} "
            f"of {len(times)}; "
            f"after {after[name]:.3f}"
        )
    slow = max(_p95(times) for times in during.values())
    print(f"  limits: 95% of queries within {slow:.2f} of {_MAX_QUERY_S} s")
    if slow > _MAX_QUERY_S:
        raise SystemExit("queries take too long")


def _print_ticks(ticks: dict[str, float]) -> None:
    for name, seconds in ticks.items():
        print(f"  {name:34} {seconds:8.2f} s (limit {_MAX_TICK_S})")
    if max(ticks.values()) > _MAX_TICK_S:
        raise SystemExit("ticks take too long")


def _p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * len(times))]


def _write_shard(workspace: Workspace, number: int) -> None:
    folder = workspace.raw_caf / f"s{number:04d}"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((48, 48)).save(folder / "0.png")
    (folder / "manifest.csv").write_text(f"path,subject,age\n0.png,p{number},{20 + number % 60}\n")


def _write_config(folder: Path, root: Path) -> Path:
    path = folder / f"{root.name}.yaml"
    path.write_text(
        f"extends: {_REPOSITORY / 'configs' / 'test.yaml'}\nworkspace: {{root: {root}}}\n"
        "synthesize: {enabled: false}\n"
    )
    return path


def _time(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _tick(instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    from jobs.sensors import new_caf_shards
    from resources.pipeline import PipelineResource

    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = new_caf_shards(context, pipeline=PipelineResource())
    assert isinstance(result, dg.SensorResult)
    return result


def _time_ticks(instance: dg.DagsterInstance, workspace: Workspace) -> dict[str, float]:
    """Time the sensor's evaluation; nothing of it is taken, so that the backfill finds it all."""
    from agetf_pipeline.data.shards import ledger_path

    _tick(instance, None)  # imports
    ledger_path(workspace).unlink()
    times = {"tick, nothing known": _time(lambda: _tick(instance, None))}
    times["tick, nothing changed on disk"] = _time(lambda: _tick(instance, None))
    ledger_path(workspace).unlink()
    times["tick, ledger lost"] = _time(lambda: _tick(instance, None))
    return times


def _queries(instance: dg.DagsterInstance) -> dict[str, Callable[[], object]]:
    return {
        "query, materialised partitions": lambda: instance.get_materialized_partitions(_ASSET),
        "query, latest 25 runs": lambda: instance.get_run_records(limit=25),
        "query, latest 25 events": lambda: instance.fetch_materializations(_ASSET, limit=25),
    }


def _time_queries(instance: dg.DagsterInstance) -> dict[str, float]:
    return {name: _time(query) for name, query in _queries(instance).items()}


def _time_backfill(
    instance: dg.DagsterInstance, config: Path, home: Path
) -> tuple[float, dict[str, list[float]]]:
    times: dict[str, list[float]] = {name: [] for name in _queries(instance)}
    command = [sys.executable, "-m", "jobs.backfill", "--assets", "caf_images"]
    started_s = time.perf_counter()
    with (home / "backfill.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--config", str(config), "--home", str(home)],
            cwd=_REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            for name, query in _queries(instance).items():
                times[name].append(_time(query))
            time.sleep(0.5)
    if process.returncode != 0:
        raise SystemExit((home / "backfill.log").read_text())
    return time.perf_counter() - started_s, times


def _time_without_dagster(config: Path, num_shards: int) -> float:
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.stages.ingest import run

    loaded = load_config(config, [])
    workspace = workspace_of(loaded)
    shards = [f"caf/s{number:04d}" for number in range(num_shards)]
    return _time(lambda: [run(loaded, workspace, shard) for shard in shards])


if __name__ == "__main__":
    main()
