"""`agetf pull` and `agetf publish`: photographs from shared storage, releases into it."""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import AgetfError, ConfigError, StageError, UnavailableError

if TYPE_CHECKING:
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data.remote import PullReport
    from agetf_pipeline.release.publishing import PushReport

Say = Callable[[str], None]
CORPORA = ("ffhq_aging", "caf")


def add_pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf pull` takes beside config and overrides."""
    parser.add_argument("--only", choices=CORPORA, help="default: every corpus with a source_uri")
    parser.set_defaults(act=_pull)


def add_publish_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf publish` takes beside config and overrides."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a version that has other content"
    )
    parser.set_defaults(act=_publish)


def run(options: argparse.Namespace, say: Say) -> int:
    """Run either command; tell its lines to `say`; return the exit code."""
    from agetf_pipeline.config import load_config, workspace_of

    config = load_config(options.config, options.overrides)
    return options.act(options, config, workspace_of(config), say)


def sources(config: "PipelineConfig") -> dict[str, str]:
    """Return the corpora that are copied from shared storage, each with its URI."""
    uris = {corpus: getattr(config.ingest, corpus).source_uri for corpus in CORPORA}
    return {corpus: uri for corpus, uri in uris.items() if uri is not None}


def pull_sources(
    config: "PipelineConfig", workspace: "Workspace", say: Say, only: str | None = None
) -> "dict[str, PullReport]":
    """Copy what is new or changed of every corpus that has a source.

    A corpus that fails does not keep the other from being copied.

    Raises:
        ConfigError: No corpus has a source, or its files would go where they must not.
        UnavailableError: All that failed may work a minute later.
        StageError: Several failed for other reasons. One: its own error, see `remote.pull`.
    """
    from agetf_pipeline.data.caf import MANIFEST_NAME
    from agetf_pipeline.data.forgotten import read_forgotten
    from agetf_pipeline.data.remote import pull

    chosen = {corpus: uri for corpus, uri in sources(config).items() if only in (None, corpus)}
    if not chosen:
        names = f"ingest.{only}.source_uri" if only else "ingest.<corpus>.source_uri"
        raise ConfigError(
            f"Expected {names}, such as s3://bucket/folder; found none. Set it in the config file, "
            "or put the photographs into the workspace by hand."
        )
    folders = {corpus: pull_folder(config, workspace, corpus) for corpus in chosen}
    reports: dict[str, PullReport] = {}
    errors: list[AgetfError] = []
    forgotten = read_forgotten(workspace)
    for corpus, uri in chosen.items():
        ledger = workspace.state / "pull" / f"{corpus}.jsonl"
        last = MANIFEST_NAME if corpus == "caf" else None
        try:
            base = workspace.relative(folders[corpus])
            reports[corpus] = pull(
                uri, folders[corpus], ledger, last, corpus, partial(forgotten.has_path, base)
            )
        except AgetfError as error:
            errors.append(error)
        else:
            for line in reports[corpus].lines():
                say(f"{corpus}: {line}")
    if len(errors) > 1:
        passing = all(isinstance(error, UnavailableError) for error in errors)
        kind = UnavailableError if passing else StageError
        raise kind(" ".join(str(error) for error in errors))
    if errors:
        raise errors[0]
    return reports


def pull_folder(config: "PipelineConfig", workspace: "Workspace", corpus: str) -> Path:
    """Return the folder that a corpus is copied into: the one that ingest reads.

    Raises:
        ConfigError: Photographs would go into a folder that is only read, or among drawn faces.
    """
    from agetf_pipeline.data.corpora import caf_folder, ffhq_folder

    folder = (caf_folder if corpus == "caf" else ffhq_folder)(config, workspace)
    raw = workspace.root / "data" / "raw"
    if raw not in Path(os.path.normpath(folder)).parents:
        raise ConfigError(
            f"Expected ingest.{corpus}.path below {raw}, since ingest.{corpus}.source_uri is "
            f"copied into it; found {folder}, which is only read. Leave the path out, or the URI."
        )
    if config.synthesize.enabled or (workspace.truth / "corpus.json").exists():
        raise ConfigError(
            f"Expected a workspace without drawn faces for the photographs of ingest.{corpus}."
            f"source_uri; found a synthetic corpus in {workspace.root}. Set synthesize.enabled to "
            "false and workspace.root to a folder of its own."
        )
    return folder


def publish_release(
    config: "PipelineConfig", workspace: "Workspace", overwrite: bool = False
) -> "PushReport":
    """Copy the release of the configured version to `release.publish_uri`, a folder per version.

    Raises:
        ConfigError: There is no address. Else: see `publishing.push`.
    """
    from agetf_pipeline.core.locks import exclusive_lock
    from agetf_pipeline.release.publishing import push
    from agetf_pipeline.stages import release

    uri, version = config.release.publish_uri, config.release.version
    if uri is None:
        raise ConfigError(
            "Expected release.publish_uri, such as s3://bucket/releases; found none. Set it in the "
            "config file."
        )
    # The lock of the stage: the folder is not replaced while it is read.
    lock = workspace.state / "locks" / "stages" / f"{release.STAGE}.lock"
    with exclusive_lock(lock, release.STAGE):
        folder = workspace.root / "outputs" / "release" / version
        return push(folder, f"{uri.rstrip('/')}/{version}", overwrite)


def _pull(
    options: argparse.Namespace, config: "PipelineConfig", workspace: "Workspace", say: Say
) -> int:
    reports = pull_sources(config, workspace, say, options.only)
    return 1 if any(report.refused for report in reports.values()) else 0


def _publish(
    options: argparse.Namespace, config: "PipelineConfig", workspace: "Workspace", say: Say
) -> int:
    for line in publish_release(config, workspace, options.overwrite).lines():
        say(line)
    return 0
