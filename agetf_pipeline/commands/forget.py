"""`agetf forget`: take an image or a person out of a workspace, for good."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.upkeep.forget import ForgetReport

Say = Callable[[str], None]
_NUM_NAMED = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf forget` takes beside config; overrides stand after `--set`."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="image_id (12 digits and more), path of a photograph, or with --subject a name; "
        "nothing: finish what was interrupted",
    )
    parser.add_argument("--subject", action="store_true", help="WHAT are names of subjects")
    parser.add_argument(
        "--shard",
        action="append",
        default=[],
        help="with --subject: the shard that is meant; may be repeated; default: all, and all to "
        "come",
    )
    parser.add_argument(
        "--delete-originals",
        action="store_true",
        help="remove the photographs too, those below the workspace's data/raw",
    )
    parser.add_argument(
        "--dagster-home",
        type=Path,
        help="look into the databases of this Dagster instance, too; they are left as they are",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, change nothing")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="section.key=value",
        help="override of the config; may be repeated",
    )


def run(options: argparse.Namespace, say: Say) -> int:
    """Run the command; tell its lines to `say`; return 1 where something is left."""
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.data.forgotten import read_forgotten, unfinished
    from agetf_pipeline.upkeep.findings import is_clean
    from agetf_pipeline.upkeep.forget import forget

    if options.shard and not options.subject:
        raise ConfigError(
            "Expected --shard together with --subject; found it alone. An image_id or a path says "
            "by itself what is meant."
        )
    # An override may stand where other commands take it: no photograph is called section.key=value.
    settings = [w for w in options.what if _is_override(w)]
    what = [word for word in options.what if not _is_override(word)]
    config = load_config(options.config, [*options.settings, *settings])
    workspace = workspace_of(config)
    if not what and not unfinished(read_forgotten(workspace)):
        raise ConfigError(
            "Expected what to forget, or a request that was interrupted; found neither. Give an "
            "image_id, the path of a photograph, or --subject and a name."
        )
    report = forget(
        config, workspace, what, options.subject, options.shard, options.delete_originals,
        options.dry_run, options.dagster_home,
    )  # fmt: skip
    for line in lines_of_report(report, workspace):
        say(line)
    return 0 if is_clean(report.left) else 1


def lines_of_report(report: "ForgetReport", workspace: "Workspace") -> list[str]:
    """Return a report as lines for a terminal."""
    from agetf_pipeline.upkeep.findings import lines_of

    would = "would go" if report.is_dry else "gone"
    lines = [_head(report), *report.messages]
    rows = [action for action in report.actions if action.kind == "rows"]
    lines += _some(
        f"rows {would} from {len(rows)} tables and lists:",
        [f"{workspace.relative(a.path)}: {a.num_rows}" for a in rows]
        + ([f"data/tables/images: {report.num_table_rows}"] if report.num_table_rows else []),
        report.is_dry,
    )
    for kind, text in (
        ("file", f"files of it alone, or that name it, {would}:"),
        ("picture", f"pictures of many faces, among which it may be, {would}:"),
        ("foreign", "copies outside of the workspace, reached through links, that stay:"),
    ):
        files = [
            f"{workspace.relative(a.path)}{_again(a.made_by, kind)}"
            for a in report.actions
            if a.kind == kind
        ]
        lines += _some(text, files, report.is_dry)
    lines += _originals(report, workspace)
    lines += [
        f"release {folder.name}: rows left its tables and its checksums were renewed; counts on "
        "its cards are those of before: write a new release, and take back what was published"
        for folder in sorted(report.releases)
    ]
    lines += _models(report)
    lines += lines_of(report.left)
    if not report.is_dry and not report.left:
        lines.append("looked through again: nothing of it is left in what was made here")
    if not report.is_dry and rows:
        lines.append("run `agetf run` (or the main job): figures and pictures are made without it")
    return lines


def _head(report: "ForgetReport") -> str:
    people = f" of {report.num_subjects} subjects" if report.num_subjects else ""
    done = "would be forgotten (dry run, nothing changed)" if report.is_dry else "forgotten"
    return f"{report.num_images} images{people} {done}"


def _again(stage: str, kind: str) -> str:
    if stage:
        return f" (drawn again by {stage})"
    return " (logged in MLflow, not drawn again)" if kind == "picture" else ""


def _some(head: str, items: Iterable[str], every: bool) -> list[str]:
    found = sorted(items)
    if not found:
        return []
    shown = found if every else found[:_NUM_NAMED]
    more = [f"  and {len(found) - len(shown)} more"] if len(shown) < len(found) else []
    return [head, *(f"  {item}" for item in shown), *more]


def _originals(report: "ForgetReport", workspace: "Workspace") -> list[str]:
    def named(goes: bool) -> list[str]:
        return [_shown(path, workspace) for path, its in report.originals.items() if its is goes]

    lines = _some(
        f"originals {'would go' if report.is_dry else 'removed'}:", named(True), report.is_dry
    )
    lines += _some(
        "originals that stay (they are not read again; remove them where they came from, and from "
        "its backups, or give --delete-originals for those below data/raw):",
        named(False),
        report.is_dry,
    )
    return lines + _some(
        "another picture has taken the name of an original, and stays as it is (to forget that "
        "one, too, give its path):",
        [_shown(path, workspace) for path in report.replaced],
        report.is_dry,
    )


def _shown(path: Path, workspace: "Workspace") -> str:
    from agetf_pipeline.data.listing import escape_name

    return escape_name(workspace.relative(path))


def _models(report: "ForgetReport") -> list[str]:
    lines = [
        f"  {model.name}: {model.num_asked} of its {model.num_images} images"
        for model in report.models
    ]
    counts = Counter((v.model, v.version, v.aliases) for v in report.versions)
    for model, version, aliases in sorted(counts):
        parts = [
            f"{v.part} ({v.num_asked} of {v.num_images})"
            for v in report.versions
            if (v.model, v.version) == (model, version)
        ]
        named = f" [{', '.join(aliases)}]" if aliases else ""
        lines.append(f"  registered: {model} version {version}{named}: {', '.join(parts)}")
    if not lines:
        return ["no network here is known to have learned from it"]
    return [
        "learned from it, and still hold what they learned (nothing was done to them):",
        *lines,
        "train again without it (`agetf run`), which registers new versions; then promote one with "
        "`agetf registry promote`, and delete the old versions in MLflow",
    ]


def _is_override(word: str) -> bool:
    head, equals, _ = word.partition("=")
    return bool(equals) and "." in head and "/" not in head
