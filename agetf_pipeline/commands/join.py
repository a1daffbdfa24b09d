"""`agetf join STAGE`: compute for a run of a stage that another process leads."""

import argparse
from collections.abc import Callable

_WAIT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    # Written out: what names them loads polars. A test holds the two together.
    parser.add_argument("stage", choices=("predict", "enhance", "recheck", "caption"))
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="those of the run that leads"
    )
    parser.add_argument(
        "--partition",
        help="ffhq_aging or caf/<shard>; default: whichever are being worked on, one by one",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=_WAIT_S,
        metavar="SECONDS",
        help=f"how long to wait for work before leaving; default: {_WAIT_S:g}",
    )


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Join until nothing is left; return the exit code."""
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.stages.joining import join_stage

    config = load_config(options.config, options.overrides)
    stage: str = options.stage
    done = join_stage(stage, config, workspace_of(config), options.partition, options.wait)
    for joined in done:
        say(
            f"  {stage} {joined.partition}: {joined.num_chunks} chunks computed here, "
            f"{joined.num_rows} rows"
        )
        if joined.is_abandoned:
            say(
                "    note: the run that was joined was ended before it was finished; "
                f"`agetf {stage} --partition {joined.partition}` goes on, and puts the table "
                "together"
            )
    if not done:
        where = f" {options.partition}" if options.partition else ""
        say(f"  {stage}{where}: nobody had work to share within {options.wait:g} s")
    return 0
