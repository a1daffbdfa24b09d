"""`agetf models list | fetch | verify | import`: the published checkpoints and their files."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agetf_pipeline.checkpoints.catalogue import Catalogue
    from agetf_pipeline.checkpoints.hashes import HashOf
    from agetf_pipeline.checkpoints.verifying import Verdict
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace

Say = Callable[[str], None]
# From what must be looked at first to what is in order.
_ORDER = ("mismatch", "unverified", "missing", "unchecked", "accepted", "own", "verified")
_VOUCHED = {
    "published": "as published",
    "person": "accepted by you: no published checksum is known",
    "mismatch": "accepted by you AGAINST the published checksum",
}


@dataclass(frozen=True)
class Context:
    """What every action works on, and who is told its lines."""

    config: "PipelineConfig"
    workspace: "Workspace"
    catalogue: "Catalogue"
    say: Say


def add_parsers(models: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the four subcommands to the parser of `agetf models`."""
    actions = models.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, what: str, act: Callable) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[common], help=what)
        action.set_defaults(act=act)
        return action

    listing = add("list", "which checkpoints there are, and which of their files are here", _list)
    listing.add_argument("--files", action="store_true", help="a line per file, with its source")
    listing.add_argument("names", nargs="*", metavar="section.key=value")
    fetch = add("fetch", "download checkpoints, resume, verify", _fetch)
    fetch.add_argument("names", nargs="+", metavar="NAME", help="and section.key=value overrides")
    verify = add("verify", "hash the files that are here; exit code 1 on a mismatch", _verify)
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    bring = add("import", "take a file or folder that you brought, and accept it", _import)
    bring.add_argument("source", type=Path, metavar="FILE")
    bring.add_argument("names", nargs="*", metavar="section.key=value")
    bring.add_argument("--name", help="which checkpoint it is, or a new name")
    bring.add_argument(
        "--accept-mismatch", action="store_true", help="take it against the published checksum"
    )


def run(options: argparse.Namespace, say: Say) -> int:
    """Run one action; tell its lines to `say`; return the exit code."""
    from agetf_pipeline.checkpoints.catalogue import find_catalogue
    from agetf_pipeline.config import load_config, workspace_of

    overrides = [text for text in options.names if "=" in text]
    options.names = [text for text in options.names if "=" not in text]
    config = load_config(options.config, overrides)
    catalogue = find_catalogue(config.runtime)
    return options.act(options, Context(config, workspace_of(config), catalogue, say))


def _list(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.checkpoints.catalogue import catalogue_path, checkpoints_folder
    from agetf_pipeline.checkpoints.hashes import known_hash

    if options.names:
        _names(options.names, its.catalogue)
    if not its.catalogue.checkpoints:
        its.say(
            f"no catalogue at {catalogue_path(its.config.runtime)}: imported files alone are known"
        )
    rows = []
    for name in options.names or its.catalogue.checkpoints:
        checkpoint = its.catalogue.checkpoints[name]
        verdicts = _verdicts(name, its.workspace, its.catalogue, known_hash)
        size = checkpoint.download_mb
        rows.append(
            (
                name,
                _summary(verdicts),
                "?" if size is None else f"{size:,.0f} MB" if size >= 1 else f"{size:.1f} MB",
                checkpoint.licence.name,
                ", ".join(checkpoint.used_by) or "-",
            )
        )
        if options.files:
            rows += [
                (f"  {path}", verdict.status, "", "", url or "by hand")
                for (path, url), verdict in zip(
                    _files(name, its.workspace, its.catalogue), verdicts, strict=True
                )
            ]
    rows += [
        (f"({key})", verdict.status, "", "not in the catalogue", "-")
        for key, verdict in _others(its.workspace, its.catalogue, known_hash)
    ]
    for line in _table(("name", "files here", "size", "licence", "used by"), rows):
        its.say(line)
    its.say(f"folder: {checkpoints_folder(its.workspace)}")
    return 0


def _fetch(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.checkpoints.fetching import fetch
    from agetf_pipeline.core.errors import WeightsError

    failed = 0
    _names(options.names, its.catalogue)
    for name in options.names:
        licence = its.catalogue.checkpoint(name).licence
        its.say(f"{name}: licence {licence.name}. {licence.note}".rstrip())
        try:
            for file in fetch(name, its.workspace, its.catalogue):
                verb = "already there" if file.already else "fetched"
                proof = "as published" if file.vouched else "no published checksum to compare with"
                its.say(f"  {file.path}: {verb}, sha256 {file.sha256[:12]}..., {proof}")
        except WeightsError as error:
            # The others are independent of it: they are fetched all the same.
            failed += 1
            its.say(str(error))
    return 1 if failed else 0


def _verify(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.checkpoints.hashes import fresh_hash

    names = _names(options.names, its.catalogue) or list(its.catalogue.checkpoints)
    found: list[tuple[str, Verdict]] = [
        (verdict.path.name, verdict)
        for name in names
        for verdict in _verdicts(name, its.workspace, its.catalogue, fresh_hash)
    ]
    if not options.names:
        found += _others(its.workspace, its.catalogue, fresh_hash)
    present = [(key, verdict) for key, verdict in found if verdict.status != "missing"]
    for _, verdict in present:
        digest = f", sha256 {verdict.sha256}" if verdict.sha256 else ""
        its.say(f"{verdict.path}: {verdict.status}{digest}")
        if verdict.problem is not None:
            its.say(f"  {verdict.problem}")
    if options.names:
        for _, verdict in found:
            if verdict.status == "missing":
                its.say(f"{verdict.path}: missing")
    num_bad = sum(verdict.status == "mismatch" for _, verdict in present)
    its.say(f"{len(present)} files hashed, {num_bad} of them not what they should be")
    return 1 if num_bad else 0


def _import(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.checkpoints.importing import import_path

    for file in import_path(
        options.source, its.workspace, its.catalogue, options.name, options.accept_mismatch
    ):
        its.say(f"{file.checkpoint}: {file.path}, sha256 {file.sha256}, {_VOUCHED[file.vouched]}")
    return 0


def _names(names: Sequence[str], catalogue: "Catalogue") -> list[str]:
    for name in names:
        catalogue.checkpoint(name)  # refuses what is not there
    return list(names)


def _files(
    name: str, workspace: "Workspace", catalogue: "Catalogue"
) -> list[tuple[str, str | None]]:
    """Path and url of every file of a checkpoint, with those that its index names."""
    from agetf_pipeline.checkpoints.fetching import shard_files

    checkpoint = catalogue.checkpoint(name)
    return [(f.path, f.url) for f in (*checkpoint.files, *shard_files(checkpoint, workspace))]


def _verdicts(
    name: str, workspace: "Workspace", catalogue: "Catalogue", hash_of: "HashOf"
) -> "list[Verdict]":
    from agetf_pipeline.checkpoints.catalogue import checkpoints_folder
    from agetf_pipeline.checkpoints.verifying import judge

    folder = checkpoints_folder(workspace)
    return [
        judge(folder / path, workspace, catalogue, hash_of)
        for path, _ in _files(name, workspace, catalogue)
    ]


def _others(
    workspace: "Workspace", catalogue: "Catalogue", hash_of: "HashOf"
) -> "list[tuple[str, Verdict]]":
    """Files on record that no entry of the catalogue lists."""
    from agetf_pipeline.checkpoints.catalogue import checkpoints_folder
    from agetf_pipeline.checkpoints.checksums import read_record
    from agetf_pipeline.checkpoints.verifying import judge

    folder = checkpoints_folder(workspace)
    listed = {
        path for name in catalogue.checkpoints for path, _ in _files(name, workspace, catalogue)
    }
    return [
        (key, judge(folder / key, workspace, catalogue, hash_of))
        for key in read_record(workspace)
        if key not in listed
    ]


def _summary(verdicts: "Sequence[Verdict]") -> str:
    """The worst status of a checkpoint's files, and how many are here."""
    here = [verdict for verdict in verdicts if verdict.status != "missing"]
    if not here:
        return "missing"
    worst = min((verdict.status for verdict in here), key=_ORDER.index)
    counted = "" if len(verdicts) == 1 else f" {len(here)}/{len(verdicts)}"
    return f"{worst}{counted}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns with two spaces between them."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
