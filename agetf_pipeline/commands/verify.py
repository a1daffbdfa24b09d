"""`agetf verify`: everything in a workspace against everything else; nothing is changed."""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.upkeep.verify import Verification

_USAGE = 2
_UNITS = {"bytes": "read", "bytes_hashed": "hashed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--partition",
        action="append",
        help="ffhq_aging or caf/<shard>; may be repeated; default: all there are",
    )
    parser.add_argument(
        "--only",
        metavar="AREA,...",
        help="of tables, links, files, models, state; default: all of them",
    )
    parser.add_argument(
        "--quick", action="store_true", help="look for pictures, but do not hash them again"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--dagster-home", type=Path, help="verify the SQLite files of this Dagster instance, too"
    )


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Verify, print what was found, and keep the list of it; return the exit code.

    0: no error. 1: errors, or there is no workspace. 2: wrong usage.
    """
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.upkeep.verify import unknown_partitions, verify_workspace
    from agetf_pipeline.upkeep.verify_checks import AREAS

    areas = AREAS if options.only is None else tuple(options.only.split(","))
    unknown = sorted(set(areas) - set(AREAS))
    if unknown:
        say(f"Expected --only with some of {','.join(AREAS)}; found {','.join(unknown)}.")
        return _USAGE
    config = load_config(options.config, options.overrides)
    workspace = workspace_of(config)
    absent = unknown_partitions(config, workspace, options.partition or ())
    if absent and workspace.root.is_dir():
        say(f"Expected partitions of {workspace.root}; it has no {', '.join(absent)}.")
        return _USAGE
    result = verify_workspace(
        config, workspace, areas, options.partition, options.quick, options.dagster_home
    )
    kept = _keep(workspace, result)
    if options.json:
        findings = [asdict(finding) for finding in result.findings]
        areas_json = {area: dict(tally) for area, tally in result.tallies.items()}
        say(json.dumps({"clean": result.is_clean, "areas": areas_json, "findings": findings}))
    else:
        say("\n".join([*lines_of_result(result), kept]))
    return 0 if result.is_clean else 1


def lines_of_result(result: "Verification") -> list[str]:
    """Return a verification as lines for a terminal: what was looked at, what was found."""
    from agetf_pipeline.upkeep.findings import SEVERITIES, lines_of

    by_area = Counter((f.check.partition("/")[0], f.severity) for f in result.findings)
    lines = []
    for area, tally in result.tallies.items():
        counts = [f"{by_area[area, s]} {s}s" for s in SEVERITIES if by_area[area, s]]
        lines.append(f"{area:<7} {', '.join(counts) or 'clean'}; {_spell(tally) or 'nothing'}")
    totals = Counter(finding.severity for finding in result.findings)
    verdict = "clean" if result.is_clean else "NOT CLEAN"
    found = ", ".join(f"{totals[severity]} {severity}s" for severity in SEVERITIES)
    return [*lines, *lines_of(result.findings), f"{verdict}: {found}"]


def _spell(tally: Mapping[str, int]) -> str:
    """Return `46 tables, 29,765 rows, 7.8 MB read`."""
    words = [f"{n:,} {name.replace('_', ' ')}" for name, n in tally.items() if name not in _UNITS]
    sizes = [
        f"{tally[name] / 1e6:,.1f} MB {verb}" for name, verb in _UNITS.items() if name in tally
    ]
    return ", ".join([*words, *sizes])


def _keep(workspace: "Workspace", result: "Verification") -> str:
    """Write the whole list to stats/verify.csv; return what became of it."""
    import polars as pl

    from agetf_pipeline.core.errors import StorageError
    from agetf_pipeline.core.files import write_text
    from agetf_pipeline.data.csv_files import for_spreadsheets
    from agetf_pipeline.upkeep.findings import COLUMNS
    from agetf_pipeline.upkeep.verify_forgotten import VERIFIED

    rows = [asdict(finding) for finding in result.findings]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String))
    path = workspace.stats / VERIFIED
    try:
        write_text(path, for_spreadsheets(frame))
    except (OSError, StorageError) as error:  # a full disk is no reason to keep quiet
        return f"not written: {path} ({error})"
    return f"written: {path}"
