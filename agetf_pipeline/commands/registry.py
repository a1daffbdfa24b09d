"""`agetf registry list | show | promote | rollback`: the models in MLflow, and who is champion."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import ConfigError, StageError

if TYPE_CHECKING:
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.registry.tracking import MlflowClient

Say = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """What every action works on, and who is told its lines."""

    workspace: "Workspace"
    tracking_uri: str
    model: str
    say: Say


def add_parsers(registry: argparse.ArgumentParser, located: argparse.ArgumentParser) -> None:
    """Add the subcommands to the parser of `agetf registry`."""
    actions = registry.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(
        name: str, what: str, act: Callable, wanted: str | None = None
    ) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[located], help=what)
        if wanted is not None:
            action.add_argument("version", metavar=wanted)
        action.add_argument(
            "overrides", nargs="*", metavar="section.key=value",
            help="e.g. register_model.tracking_uri=http://127.0.0.1:5000",
        )  # fmt: skip
        action.add_argument(
            "--model", metavar="NAME", help="age-transformer (the default), or age-mixture"
        )
        action.set_defaults(act=act)
        return action

    add("list", "all versions, with key figures and decisions", _list)
    add("show", "one version: origin, figures, gates, history", _show, "VERSION_OR_ALIAS")
    promote = add(
        "promote", "make a version the champion by hand, whatever the gates say", _promote,
        "VERSION_OR_ALIAS",
    )  # fmt: skip
    back = add("rollback", "make the champion before the champion again", _roll_back)
    back.add_argument("--to", metavar="VERSION", help="an earlier champion")
    for action in (promote, back):
        action.add_argument("--reason", required=True, type=_text, help="why; it is written down")


def run(options: argparse.Namespace, say: Say) -> int:
    """Run one action; tell its lines to `say`; return the exit code."""
    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.registry.tracking import tracking_uri_of

    config = load_config(options.config, options.overrides)
    workspace, settings = workspace_of(config), config.register_model
    model = options.model or settings.model_name
    if model not in (settings.model_name, settings.mixture_name):
        raise ConfigError(
            f"Expected --model {settings.model_name} or {settings.mixture_name}, as the config "
            f"names them; found {model!r}. Correct it, or set register_model.model_name."
        )
    uri = tracking_uri_of(workspace, settings.tracking_uri)
    if settings.tracking_uri is None and not (workspace.root / "mlflow.db").is_file():
        message = f"no registry yet at {workspace.root / 'mlflow.db'}: run the stage register"
        if options.act is not _list:
            raise StageError(f"Expected a registry; found {message}.")
        say(message)
        return 0
    return options.act(options, Context(workspace, uri, model, say))


def _list(_: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.registry.listing import list_versions, table
    from agetf_pipeline.registry.tracking import connected

    with connected(its.tracking_uri) as client:
        listed = list_versions(client, its.model)
    for line in table(listed) if listed else [f"no versions of {its.model} yet"]:
        its.say(line)
    return 0


def _show(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.registry.listing import details, find_listed
    from agetf_pipeline.registry.tracking import connected

    with connected(its.tracking_uri) as client:
        for line in details(client, its.model, find_listed(client, its.model, options.version)):
            its.say(line)
    return 0


def _promote(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.registry import history
    from agetf_pipeline.registry.listing import find_listed, gate_lines
    from agetf_pipeline.registry.versions import COMPARED_TAG

    with _alone(its) as client:
        item = find_listed(client, its.model, options.version)
        champion = history.settle(client, its.model)
        if champion == item.version:
            its.say(f"version {item.version} of {its.model} is the champion already")
            return 0
        compared = item.tags.get(COMPARED_TAG, "none")
        against = "no champion" if compared == "none" else f"version {compared}"
        its.say(f"what the gates say of version {item.version}, compared with {against}:")
        for line in gate_lines(item):
            its.say(line)
        if compared != (champion or "none"):
            its.say(f"note: the champion is {f'version {champion}' if champion else 'nobody'} now")
        by = f"by hand: {options.reason}"
        event = history.promote(client, its.model, item.version, by, champion)
    its.say(_changed(its.model, event))
    return 0


def _roll_back(options: argparse.Namespace, its: Context) -> int:
    from agetf_pipeline.registry import history
    from agetf_pipeline.registry.listing import list_versions

    with _alone(its) as client:
        list_versions(client, its.model)  # says what there is where there is no such model
        event = history.roll_back(client, its.model, options.reason, options.to)
    its.say(_changed(its.model, event))
    return 0


def _changed(model: str, event) -> str:
    return (
        f"champion of {model}: version {event.version} (before: {event.previous or 'none'}); "
        f"{event.action}, {event.by}"
    )


@contextmanager
def _alone(its: Context) -> "Iterator[MlflowClient]":
    """Give a client while no other process of this machine changes the registry."""
    from agetf_pipeline.registry.history import registry_lock
    from agetf_pipeline.registry.tracking import connected

    with registry_lock(its.workspace, its.tracking_uri), connected(its.tracking_uri) as client:
        yield client


def _text(value: str) -> str:
    if not value.strip():
        raise argparse.ArgumentTypeError("a reason of at least one word")
    return value.strip()
