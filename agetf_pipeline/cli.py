"""The command line: `agetf <stage> --config FILE [section.key=value ...]`, `agetf render`, ...

Exit codes: 0 success; 1 the work failed or had to stop, with the reason; 2 wrong usage; 130 it was
interrupted; 141 nobody reads what it prints any more.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from agetf_pipeline import __version__

_DEFAULT_CONFIG = Path("configs/demo.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.secrets import keep_out_of_logs

    prepare_process()
    keep_out_of_logs()
    options = _parse(_parser(), arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("agetf_pipeline").setLevel(logging.WARNING if options.quiet else logging.INFO)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        from agetf_pipeline.core.ending import describe_bug, describe_ending

        message, code = describe_ending(error, Path.cwd()) or describe_bug(error)
        if message:
            print(message, file=sys.stderr)
        return code


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; overrides may stand anywhere.

    argparse takes all positional arguments of a command from one place: with `show 3 --config F
    a.b=c` the override is left over.
    """
    options, left = parser.parse_known_args(arguments)
    if not hasattr(options, "overrides") or any(
        word.startswith("-") or "=" not in word for word in left
    ):
        return parser.parse_args(arguments)  # says what is wrong, and ends
    options.overrides = [*options.overrides, *left]
    return options


def _parser() -> argparse.ArgumentParser:
    from agetf_pipeline.commands.captions import add_parsers as add_captions_parsers
    from agetf_pipeline.commands.completion import add_arguments as add_completion_arguments
    from agetf_pipeline.commands.doctor import add_arguments as add_doctor_arguments
    from agetf_pipeline.commands.forget import add_arguments as add_forget_arguments
    from agetf_pipeline.commands.join import add_arguments as add_join_arguments
    from agetf_pipeline.commands.model import add_parsers as add_model_parsers
    from agetf_pipeline.commands.models import add_parsers as add_models_parsers
    from agetf_pipeline.commands.registry import add_parsers as add_registry_parsers
    from agetf_pipeline.commands.render import add_arguments as add_render_arguments
    from agetf_pipeline.commands.stage import add_parsers as add_stage_parsers
    from agetf_pipeline.commands.storage import add_publish_arguments, add_pull_arguments
    from agetf_pipeline.commands.unpack import add_arguments as add_unpack_arguments
    from agetf_pipeline.commands.verify import add_arguments as add_verify_arguments
    from agetf_pipeline.demo.command import add_arguments as add_demo_arguments

    parser = argparse.ArgumentParser(
        prog="agetf",
        description="From raw face photographs to a model that renders ten ages from one pass.",
    )
    parser.add_argument("--version", action="version", version=f"agetf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="warnings and results only")
    located = argparse.ArgumentParser(add_help=False, parents=[common])
    located.add_argument(
        "--config", type=Path, default=_DEFAULT_CONFIG, help="default: configs/demo.yaml"
    )
    configured = argparse.ArgumentParser(add_help=False, parents=[located])
    configured.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="e.g. train.batch_size=8"
    )

    add_stage_parsers(commands, configured, _run_all, _run_stage)

    join = commands.add_parser(
        "join", parents=[located], help="compute for a stage that another process runs"
    )
    add_join_arguments(join)
    join.set_defaults(run=_join)

    render = commands.add_parser(
        "render", parents=[common], help="render photographs at ten ages, or at any"
    )
    add_render_arguments(render)
    render.set_defaults(run=_render)

    estimate = commands.add_parser(
        "estimate-age", parents=[configured], help="estimate ages with the mixture of experts"
    )
    estimate.add_argument(
        "--input",
        type=Path,
        action="append",
        required=True,
        help="a photograph or a folder; may be repeated",
    )
    estimate.add_argument(
        "--out", type=Path, required=True, help="file to write: .csv, .json or .parquet"
    )
    estimate.add_argument(
        "--aligned", action="store_true", help="faces fill the pictures already: do not search"
    )
    estimate.set_defaults(run=_estimate_age)

    check = commands.add_parser(
        "check-labels", parents=[common], help="read, judge and count a CSV of age labels"
    )
    check.add_argument("file", type=Path, help="FFHQ-Aging's labels, or a relabelling")
    check.add_argument("--out", type=Path, help="folder for tables, expectations and a plot")
    check.set_defaults(run=_check_labels)

    models = commands.add_parser(
        "models", help="published checkpoints: list, fetch, verify, import"
    )
    add_models_parsers(models, located)
    models.set_defaults(run=_models)

    model = commands.add_parser(
        "model", help="the AgeTransformer: what its sizes cost; export a trained one"
    )
    add_model_parsers(model, common)
    model.set_defaults(run=_model)

    captions = commands.add_parser(
        "captions", help="look at captions; versions of them in the cache: list, prune"
    )
    add_captions_parsers(captions, configured)
    captions.set_defaults(run=_captions)

    registry = commands.add_parser(
        "registry", help="the models in MLflow: list, show, promote, rollback"
    )
    add_registry_parsers(registry, located)
    registry.set_defaults(run=_registry)

    forget = commands.add_parser(
        "forget", parents=[located], help="take an image or a person out of everything, for good"
    )
    add_forget_arguments(forget)
    forget.set_defaults(run=_forget)

    pull = commands.add_parser(
        "pull", parents=[configured], help="copy new photographs from shared storage (s3://, ...)"
    )
    add_pull_arguments(pull)
    pull.set_defaults(run=_storage)

    unpack = commands.add_parser(
        "unpack", parents=[located], help="unpack CAF shards that arrived as archives"
    )
    add_unpack_arguments(unpack)
    unpack.set_defaults(run=_unpack)

    publish = commands.add_parser(
        "publish", parents=[configured], help="copy the release to shared storage"
    )
    add_publish_arguments(publish)
    publish.set_defaults(run=_storage)

    verify = commands.add_parser(
        "verify", parents=[configured], help="verify a workspace: tables, links, files, models"
    )
    add_verify_arguments(verify)
    verify.set_defaults(run=_verify)
    doctor = commands.add_parser(
        "doctor",
        parents=[configured],
        help="check installation, machine, devices, workspace, data, weights and services",
    )
    add_doctor_arguments(doctor)
    doctor.set_defaults(run=_doctor)
    completion = commands.add_parser(
        "completion", parents=[common], help="print what a shell needs to complete all this"
    )
    add_completion_arguments(completion)
    completion.set_defaults(run=lambda options: _completion(options, parser))

    demo = commands.add_parser(
        "demo", parents=[configured], help="the app in the browser, for this machine alone"
    )
    add_demo_arguments(demo)
    demo.set_defaults(run=_demo)
    return parser


def _run_stage(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.stage import run_one

    return run_one(options, say=lambda line: print(line, flush=True))


def _join(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.join import run

    return run(options, say=print)


def _run_all(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.stage import run_all

    return run_all(options, say=lambda line: print(line, flush=True))


def _render(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.render import render_files

    results = render_files(
        options.input,
        options.model,
        options.out,
        options.ages,
        aligned=options.aligned,
        device=options.device,
        tracking_uri=options.tracking_uri,
        formats=options.format,
        face=options.face,
        precision=options.precision,
        compiled=options.compile,
    )
    for result in results:
        print(result)
    return 0 if any(result.outputs for result in results) else 1


def _estimate_age(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.estimate_age import estimate_files
    from agetf_pipeline.config import load_config, workspace_of

    config = load_config(options.config, options.overrides)
    frame = estimate_files(
        options.input, options.out, config, workspace_of(config), aligned=options.aligned
    )
    for row in frame.iter_rows(named=True):
        age = "no age" if row["age_years"] is None else f"{row['age_years']:.1f} years"
        low, high = row["interval_low_years"], row["interval_high_years"]
        interval = "" if low is None else f" ({low:.0f} to {high:.0f})"
        reason = f"; {row['reason']}" if row["reason"] else ""
        print(f"{row['path']}: {age}{interval}{reason}")
    print(f"written: {options.out}")
    return 0 if frame["age_years"].is_not_null().any() else 1


def _check_labels(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.label_table import check_labels

    checked = check_labels(options.file, options.out)
    print("\n".join(checked.lines()))
    return 1 if checked.result.blocks else 0


def _models(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.models import run

    return run(options, say=lambda line: print(line, flush=True))


def _captions(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.captions import run

    return run(options, say=print)


def _registry(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.registry import run

    return run(options, say=print)


def _forget(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.forget import run

    return run(options, say=print)


def _storage(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.storage import run

    return run(options, say=print)


def _verify(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.verify import run

    return run(options, say=lambda line: print(line, flush=True))


def _unpack(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.unpack import run

    return run(options, say=print)


def _doctor(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.doctor import run

    return run(options, say=lambda line: print(line, flush=True))


def _model(options: argparse.Namespace) -> int:
    from agetf_pipeline.commands.model import run

    return run(options, say=lambda line: print(line, flush=True))


def _demo(options: argparse.Namespace) -> int:
    from agetf_pipeline.demo.command import run

    return run(options, say=lambda line: print(line, flush=True))


def _completion(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from agetf_pipeline.commands.completion import run

    return run(options.shell, parser, say=print)


if __name__ == "__main__":
    sys.exit(main())
