"""`make bench`: every stage beside its peer and its ceiling, in one table.

    python -m benchmarks [NAME ...] [--record]

Each module of `MODULES` has a function `rows()`, which yields `benchmarks.rows.Row` and is run in a
process of its own, so that the memory that it shows is its own. `--record` appends the table, with
the date and the machine, to docs/benchmarks.md. What is claimed are ratios within one run: the
times depend on the machine. The exit code is 0 whatever the figures are; the table says which of
them are not as wanted.
"""

import argparse
import datetime
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, from_json, machine, table, to_json

_REPOSITORY = Path(__file__).resolve().parents[1]
_RECORD = _REPOSITORY / "docs" / "benchmarks.md"
MODULES = ("startup", "ingest", "relabel", "enhance", "captions", "loader", "render", "tables",
           "growth", "workers")  # fmt: skip
"""In the order of the pipeline; the others of this folder measure no speed, or have a target of
their own in the Makefile."""


def main() -> None:
    """Run the benchmarks that are asked for, and print their table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--record", action="store_true", help="append the table to the docs")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        _run_here(*options.one)
        return
    unknown = sorted(set(options.names) - set(MODULES))
    if unknown:
        parser.error(f"expected names of {', '.join(MODULES)}; found {', '.join(unknown)}")
    rows, failed = [], []
    for name in [name for name in MODULES if name in (options.names or MODULES)]:
        found = _run_apart(name)
        rows += found
        if not found:
            failed.append(name)
    text = table(rows)
    print(f"\n{text}")
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(rows), indent=2) + "\n", encoding="utf-8")
    if options.record:
        _record(text)
    if failed:
        sys.exit(f"these benchmarks came to no end: {', '.join(failed)}")


def _run_apart(name: str) -> list[Row]:
    """Run a benchmark in a process of its own; none of its rows where it fails."""
    print(f"== {name}", flush=True)
    started_s = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks", "--one", name, file.name]
        done = subprocess.run(command, check=False, cwd=_REPOSITORY)
        print(f"== {name}: {time.monotonic() - started_s:.0f} s", flush=True)
        return [] if done.returncode else from_json(json.loads(Path(file.name).read_text()))


def _run_here(name: str, out: str) -> None:
    rows = []
    for row in importlib.import_module(f"benchmarks.{name}").rows():
        print(table([row]).splitlines()[2], flush=True)
        rows.append(row)
    Path(out).write_text(json.dumps(to_json(rows)), encoding="utf-8")


def _record(text: str) -> None:
    of = machine()
    heading = f"## {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {of.pop('cpu')}"
    details = ", ".join(f"{name} {value}" for name, value in of.items())
    with _RECORD.open("a", encoding="utf-8") as file:
        file.write(f"\n{heading}\n\n{details}\n\n{text}\n")
    print(f"appended to {_RECORD.relative_to(_REPOSITORY)}")


if __name__ == "__main__":
    main()
