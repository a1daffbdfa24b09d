"""`agetf captions show | versions | prune`: looking at captions, and at their cache."""

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agetf_pipeline.captions.audit import CaptionAudit
    from agetf_pipeline.captions.examples import Example
    from agetf_pipeline.captions.pruning import StoredVersion
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace

Say = Callable[[str], None]
_ID_CHARACTERS, _MIN_COLUMN = 12, 16
_CHOSEN = {
    False: "a fixed choice from all over the corpus",
    True: "those with the gravest flags first",
}


@dataclass(frozen=True)
class Context:
    """What every action works on, and who is told its lines."""

    config: "PipelineConfig"
    workspace: "Workspace"
    say: Say


def add_parsers(captions: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    """Add the three subcommands to the parser of `agetf captions`."""
    actions = captions.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, what: str, act: Callable) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[configured], help=what)
        action.set_defaults(act=act)
        return action

    show = add("show", "images with their captions, in the terminal or as a page", _show)
    show.add_argument("--n", type=_positive, default=24, metavar="N", help="images; default: 24")
    show.add_argument("--partition", help="ffhq_aging or caf/<shard>; default: all there are")
    show.add_argument(
        "--version", metavar="NAME", help="of `versions`, or its beginning; default: that in use"
    )
    show.add_argument(
        "--prompt-hash", metavar="HASH", help="or its beginning: another request, in place of NAME"
    )
    show.add_argument("--flagged", action="store_true", help="the gravest flags first")
    show.add_argument("--out", type=Path, metavar="FILE.html", help="write a page instead")
    add("versions", "which models and prompts the cache holds captions of", _versions)
    prune = add("prune", "remove captions and caches of versions not in use", _prune)
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would go")


def run(options: argparse.Namespace, say: Say) -> int:
    """Run one action; tell its lines to `say`; return the exit code."""
    from agetf_pipeline.config import load_config, workspace_of

    config = load_config(options.config, options.overrides)
    return options.act(options, Context(config, workspace_of(config), say))


def _show(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.captions.audit import audit_captions
    from agetf_pipeline.captions.examples import choose, read_examples

    version = _select(options, its)
    partitions = _partitions(options, its, version)
    audit = audit_captions(its.workspace, partitions, version.version, its.config.caption.checks)
    examples = read_examples(its.workspace, choose(audit.rows, options.n, options.flagged))
    if options.out is not None:
        _write(options, its, version, partitions, audit, examples)
        return 0
    for line in _lines(examples):
        its.say(line)
    its.say(
        f"{len(examples)} of {audit.rows.height} images of {', '.join(partitions)}; "
        f"{audit.counts['num_usable']} have a usable caption; version {version.version.name}"
    )
    for note in _notes(version, audit):
        its.say(f"note: {note}")
    return 0


def _write(
    options: argparse.Namespace,
    its: Context,
    version: "StoredVersion",
    partitions: Sequence[str],
    audit: "CaptionAudit",
    examples: "Sequence[Example]",
) -> None:
    from agetf_pipeline.captions.page import Subject, write_page

    synthetic = its.config.synthesize.enabled
    subject = Subject(
        tuple(partitions), version.prompt, version.version, version.trained_on, synthetic
    )
    write_page(options.out, subject, audit, examples, _CHOSEN[options.flagged])
    its.say(f"written: {options.out} ({len(examples)} images)")


def _versions(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.captions.changes import visible
    from agetf_pipeline.captions.pruning import list_versions

    stored = list_versions(its.workspace)
    if not stored:
        its.say("no captions yet: run the stage `caption`")
        return 0
    head = ("", "version", "images", "usable", "mapped", "grids", "trained on", "prompt")
    rows = [
        (
            "*" if each.in_use else "",
            each.version.name,
            f"{sum(each.num_images.values()):,}",
            f"{each.num_usable:,}",
            _megabytes(each.index_bytes),
            _megabytes(each.grid_bytes),
            visible(each.trained_on or "not recorded"),
            "not known" if each.prompt is None else visible(each.prompt),
        )
        for each in stored
    ]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        its.say("  ".join(cells).rstrip())
    its.say(
        f"* in use; tables of all versions together: {_megabytes(_table_bytes(its.workspace))}; "
        "grids are shared by the versions of one model"
    )
    return 0


def _prune(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.captions import pruning

    used = pruning.version_in_use(its.workspace)
    stored = pruning.list_versions(its.workspace)
    others = [each for each in stored if not each.in_use]
    files = pruning.stale_files(its.workspace, used)
    if not others and not files:
        its.say(f"nothing to remove: every caption is of the version in use, {used.name}")
        return 0
    for each in others:
        where = ", ".join(f"{name} {num:,}" for name, num in each.num_images.items())
        its.say(f"{each.version.name}: {sum(each.num_images.values()):,} rows ({where})")
    its.say(f"files of the cache: {len(files)}, {_megabytes(pruning.size_of(files))}")
    kept = next(each for each in stored if each.in_use)
    bare = sorted({p for each in others for p in each.num_images} - set(kept.num_images))
    if bare:
        its.say(
            f"note: {', '.join(bare)}: no caption is of the version in use, {used.name}, and none "
            "would be left; run the stage `caption` there to have some"
        )
    if not options.yes:
        its.say("nothing removed: add --yes to remove it")
        return 1
    pruning.prune(its.workspace)
    its.say(f"removed; kept: {used.name}, {sum(kept.num_images.values()):,} rows")
    return 0


def _select(options: argparse.Namespace, its: Context) -> "StoredVersion":
    """Return the version that the options mean.

    Raises:
        DataError: There is none such, or several.
    """
    from agetf_pipeline.captions.pruning import list_versions, version_in_use
    from agetf_pipeline.core.errors import DataError

    stored = list_versions(its.workspace)
    if options.version is None and options.prompt_hash is None:
        used = version_in_use(its.workspace)
        return next(each for each in stored if each.version == used)
    found = [
        each
        for each in stored
        if each.version.name.startswith(options.version or "")
        and each.version.prompt_hash.startswith(options.prompt_hash or "")
    ]
    if len(found) != 1:
        names = ", ".join(each.version.name for each in found or stored) or "no captions at all"
        raise DataError(
            f"Expected one version of captions for --version {options.version} --prompt-hash "
            f"{options.prompt_hash}; found {len(found)} of: {names}. Give more of its name."
        )
    return found[0]


def _partitions(options: argparse.Namespace, its: Context, version: "StoredVersion") -> list[str]:
    from agetf_pipeline.core.errors import DataError

    known = list(version.num_images)
    wanted = known if options.partition is None else [options.partition]
    if not known or not set(wanted) <= set(known):
        raise DataError(
            f"Expected captions of version {version.version.name} in "
            f"{options.partition or 'some partition'}; found them in {', '.join(known) or 'none'}. "
            "Run the stage `caption`, or correct --partition."
        )
    return wanted


def _notes(version: "StoredVersion", audit: "CaptionAudit") -> list[str]:
    from agetf_pipeline.captions.origin import warning_of

    loud = warning_of(version.trained_on)
    return [*([] if loud is None else [loud]), *audit.messages]


def _lines(examples: "Sequence[Example]") -> list[str]:
    """Lay out a table as wide as the terminal: id, caption or why there is none, what went."""
    from agetf_pipeline.captions.changes import visible
    from agetf_pipeline.captions.flags import FLAGS

    width = max(shutil.get_terminal_size().columns, 60) - _ID_CHARACTERS - 4
    right = max(width // 3, _MIN_COLUMN)
    left = width - right
    lines = [f"{'image':<{_ID_CHARACTERS}}  {'caption':<{left}}  removed"]
    for each in examples:
        text = visible(each.caption or f"[{each.reason or 'no caption'}]")
        marks = [FLAGS[flag] for flag in each.flags if flag != "failed"]
        text = f"{text} ({'; '.join(marks)})" if marks else text
        columns = textwrap.wrap(text, left) or [""], textwrap.wrap(visible(each.removed), right)
        for number in range(max(map(len, columns))):
            first, second = (c[number] if number < len(c) else "" for c in columns)
            name = visible(each.image_id[:_ID_CHARACTERS]) if number == 0 else ""
            lines.append(f"{name:<{_ID_CHARACTERS}}  {first:<{left}}  {second}".rstrip())
    return lines


def _table_bytes(workspace: "Workspace") -> int:
    from agetf_pipeline.captions.pruning import size_of
    from agetf_pipeline.data.schemas import CAPTIONS

    return size_of([workspace.tables / CAPTIONS.name])


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a number of at least 1")
    return value
