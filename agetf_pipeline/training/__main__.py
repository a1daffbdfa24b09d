"""`python -m agetf_pipeline.training --config FILE [section.key=value ...]`, and under `torchrun`.

It does what the stage `train` does. Exit codes: 0 success; 1 the work failed or had to stop.
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, alone or as one of the processes that `torchrun` started; return the exit code."""
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.secrets import keep_out_of_logs, redact

    prepare_process()
    keep_out_of_logs()
    options = _parser().parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    shown = first and not options.for_a_stage
    logging.getLogger("agetf_pipeline").setLevel(logging.INFO if shown else logging.WARNING)
    from agetf_pipeline.core.errors import AgetfError
    from agetf_pipeline.training import launch

    if options.for_a_stage:
        launch.leave_with_the_parent()
    try:
        _train(options)
    except Exception as error:
        if isinstance(error, AgetfError):
            sys.stderr.write(f"{redact(str(error))}\n")
        else:
            sys.stderr.write(redact(traceback.format_exc()))
        if options.for_a_stage:
            launch.emit_error(error)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.core.progress import progress_listener
    from agetf_pipeline.training import launch, run

    config = load_config(options.config, options.overrides)
    workspace = workspace_of(config)
    if "WORLD_SIZE" not in os.environ:
        run.run(config, workspace)
        return
    from agetf_pipeline.training.distributed import joined, world_of_environment

    listening = progress_listener(launch.emit_progress) if options.for_a_stage else nullcontext()
    with joined(world_of_environment()) as world, listening:
        report = run.take_part(config, workspace, world, options.for_a_stage)
        if report is not None and options.for_a_stage:
            launch.emit("report", {"report": asdict(report)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agetf_pipeline.training", description="Train the AgeTransformer."
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="e.g. train.batch_size=8"
    )
    parser.add_argument(
        "--for-a-stage",
        action="store_true",
        help="a stage started this: it holds the lock, reads JSON lines, and ends this by stdin",
    )
    return parser


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code and "WORLD_SIZE" in os.environ:
        # The others do not answer any more: no tidying up that waits for them.
        os._exit(code)
    sys.exit(code)
