"""`agetf unpack`: CAF shards that arrived as archives, into the folder that ingest reads."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from agetf_pipeline.core.errors import AgetfError, DataError

Say = Callable[[str], None]
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)+=.*", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf unpack` takes beside the configuration."""
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        help=".tar, .tar.gz, .tar.zst or .zip; section.key=value may stand among them",
    )
    parser.set_defaults(overrides=[])  # those after other options
    parser.add_argument("--shard", help="name of the shard; default: that of the archive")


def run(options: argparse.Namespace, say: Say) -> int:
    """Unpack every archive; one that is refused does not stop the others.

    Raises:
        DataError: One was refused, or several were; all others are unpacked.
    """
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.data.archives import shard_name_of, unpack
    from agetf_pipeline.data.corpora import source_folder

    overrides = [w for w in options.archives if _OVERRIDE.fullmatch(w) and not Path(w).exists()]
    archives = [Path(word) for word in options.archives if word not in overrides]
    if not archives or (options.shard is not None and len(archives) > 1):
        raise DataError(
            f"Expected an archive, and one alone with --shard; found {len(archives)}. Name them."
        )
    config = load_config(options.config, [*overrides, *options.overrides])
    workspace = workspace_of(config)
    errors: list[AgetfError] = []
    for archive in archives:
        try:
            shard = shard_name_of(archive) if options.shard is None else options.shard
            folder = source_folder(config, workspace, f"caf/{shard}")
            locks = workspace.state / "locks" / "unpack"
            report = unpack(archive, folder, config.ingest.archives, locks)
        except AgetfError as error:
            errors.append(error)
            continue
        for line in report.lines():
            say(line)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError("\n".join(str(error) for error in errors))
    return 0
