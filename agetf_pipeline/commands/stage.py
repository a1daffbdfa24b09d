"""`agetf <stage>` and `agetf run`: stages without Dagster, with what they did as text or JSON."""

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from agetf_pipeline.stages.names import STAGE_SUMMARIES

if TYPE_CHECKING:
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.work import StageReport
    from agetf_pipeline.core.workspace import Workspace

_WIDTH = 100

Say = Callable[[str], None]
Run = Callable[[argparse.Namespace], int]


def add_parsers(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    configured: argparse.ArgumentParser,
    run_all: Run,
    run_stage: Run,
) -> None:
    """Add `run` and a command for each stage."""
    reporting = argparse.ArgumentParser(add_help=False, parents=[configured])
    reporting.add_argument(
        "--json", action="store_true", help="print a JSON object for each report, a line each"
    )
    reporting.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would run, with which settings, and how long that took before",
    )
    everything = commands.add_parser(
        "run", parents=[reporting], help="all stages in order, without Dagster"
    )
    everything.set_defaults(run=run_all)
    for name, summary in STAGE_SUMMARIES.items():
        stage = commands.add_parser(name, parents=[reporting], help=f"stage: {summary}")
        stage.add_argument(
            "--partition",
            action="append",
            help="ffhq_aging or caf/<shard>; may be repeated; default: all there are",
        )
        stage.set_defaults(run=run_stage, stage=name)
        if name == "enhance":
            stage.add_argument(
                "--audit",
                action="store_true",
                help="change nothing: re-verify every link between originals, copies and rows",
            )


def run_one(options: argparse.Namespace, say: Say) -> int:
    """Run one stage over the partitions asked for; return the exit code."""
    from agetf_pipeline.commands.plan import say_plans
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.data.corpora import discover_partitions
    from agetf_pipeline.stages.catalogue import run_stage, select_partitions, stage_info
    from agetf_pipeline.stages.joining import unclaimed_first

    config = load_config(options.config, options.overrides)
    workspace = workspace_of(config)
    if getattr(options, "audit", False):
        return _audit_enhanced(config, workspace, options, say)
    info = stage_info(options.stage)
    partitions: list[str | None] = (
        list(options.partition)
        if options.partition
        else select_partitions(
            info,
            [] if info.partitioning == "none" else discover_partitions(config, workspace),
        )
    )
    if options.dry_run:
        say_plans(info.name, config, workspace, partitions, options.json, say)
        return 0
    for partition in unclaimed_first(workspace, options.stage, partitions):
        _say_report(run_stage(options.stage, config, workspace, partition), options.json, say)
    return 0


def run_all(options: argparse.Namespace, say: Say) -> int:
    """Run all stages in order; return the exit code."""
    from agetf_pipeline.commands.plan import say_plans
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.data.corpora import discover_partitions
    from agetf_pipeline.stages.catalogue import STAGES, run_stage, select_partitions

    config = load_config(options.config, options.overrides)
    workspace = workspace_of(config)
    for number, info in enumerate(STAGES, start=1):
        partitions = [] if info.partitioning == "none" else discover_partitions(config, workspace)
        if options.dry_run:
            chosen = select_partitions(info, partitions)
            say_plans(info.name, config, workspace, chosen, options.json, say)
            continue
        if not options.json:
            say(f"[{number}/{len(STAGES)}] {info.name}: {info.summary}")
        for partition in select_partitions(info, partitions):
            _say_report(run_stage(info.name, config, workspace, partition), options.json, say)
    return 0


def _audit_enhanced(
    config: "PipelineConfig", workspace: "Workspace", options: argparse.Namespace, say: Say
) -> int:
    from agetf_pipeline.commands.enhance_audit import audit_shards

    shards = audit_shards(config, workspace, options.partition)
    for shard in shards:
        lines = shard.lines()
        found = {"stage": "enhance", "num_errors": shard.num_errors, "audit": lines}
        say(json.dumps(found) if options.json else "\n".join(lines))
    return 1 if any(shard.num_errors for shard in shards) else 0


def _say_report(report: "StageReport", as_json: bool, say: Say) -> None:
    if as_json:
        say(json.dumps(dataclasses.asdict(report)))
        return
    where = f" {report.partition}" if report.partition else ""
    numbers = [f"{name} {count}" for name, count in report.counts.items()]
    text = f"{report.stage}{where}: {report.status}; {', '.join(numbers) or 'no counts'}"
    say(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    figures = ", ".join(_spell_figures(report.figures))
    if figures:
        say(textwrap.fill(figures, _WIDTH, initial_indent="    ", subsequent_indent="    "))
    for message in report.messages:
        say(f"    note: {message}")
    for name, path in report.outputs.items():
        say(f"    {name}: {path}")


def _spell_figures(figures: Mapping[str, float | None]) -> Iterator[str]:
    """Yield `name value`, with its interval where there are `name_low` and `name_high`."""
    for name, value in figures.items():
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem != name and stem in figures:
            continue
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
        yield f"{name} {'unknown' if value is None else f'{value:.4g}'}{interval}"
