"""`agetf model summary | export`: what the network's sizes cost; a trained one as one file."""

import argparse
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]


def add_parsers(model: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the subcommands to the parser of `agetf model`."""
    actions = model.add_subparsers(title="actions", metavar="ACTION", required=True)
    summary = actions.add_parser(
        "summary", parents=[common], help="parameters, operations and memory of every size"
    )
    summary.add_argument("sizes", nargs="*", metavar="SIZE", help="default: all")
    summary.add_argument("--num-ages", type=_positive, default=10, metavar="N", help="default: 10")
    summary.set_defaults(act=_summary)
    export = actions.add_parser(
        "export", parents=[common], help="a trained model as a program that runs without AGETF"
    )
    export.add_argument(
        "--model", required=True, help="weights file, run folder, or models:/<name>@<alias>"
    )
    export.add_argument("--out", type=Path, required=True, help="file to write, *.pt2")
    export.add_argument(
        "--tracking-uri", help="MLflow server or database of models:/ names; default: mlflow.db"
    )
    export.set_defaults(act=_export)


def run(options: argparse.Namespace, say: Say) -> int:
    """Run the action chosen; return the exit code."""
    return options.act(options, say)


def export_model(model: str, out: Path, tracking_uri: str | None = None) -> Path:
    """Write a trained model as an exported program.

    Args:
        model: Weights file, a folder that holds it, or `models:/<name>@<alias>`.
        out: File to write, `*.pt2`.
        tracking_uri: MLflow database or server of a `models:/` name; None for `mlflow.db` of the
            current folder.

    Raises:
        WeightsError: The model cannot be found or loaded, or `out` has another suffix.
    """
    from agetf_pipeline.age_transformer.exporting import export_program
    from agetf_pipeline.age_transformer.renderer import load_model
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.registry import resolve_model

    network, card = load_model(resolve_model(model, Workspace(Path.cwd()), tracking_uri))
    return export_program(network, card, out)


def _summary(options: argparse.Namespace, say: Say) -> int:
    from agetf_pipeline.age_transformer.summary import summarise, table_lines

    for line in table_lines(summarise(options.sizes, options.num_ages)):
        say(line)
    say(
        "One face. Two operations a multiply-add; memory in fp32, activations without the scratch "
        "of convolutions."
    )
    return 0


def _export(options: argparse.Namespace, say: Say) -> int:
    path = export_model(options.model, options.out, options.tracking_uri)
    say(f"written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _positive(text: str) -> int:
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1; found {text!r}")
