"""`agetf demo`: the app in the browser, for this machine alone."""

import argparse
from collections.abc import Callable
from pathlib import Path

_PORT = 7860


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command; `--config` and overrides come from the caller."""
    parser.add_argument("--port", type=int, default=_PORT, help=f"default: {_PORT}")
    parser.add_argument(
        "--model", metavar="REF", help="weights file, run's folder or models:/<name>@<alias>"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Serve the app until it is told to end, tell `say` where; return the exit code.

    Raises:
        ConfigError: The config is wrong, Gradio is not installed, or the port is taken.
    """
    from tempfile import TemporaryDirectory

    from agetf_pipeline.config import load_config, workspace_of
    from agetf_pipeline.demo.app import launch, require_gradio
    from agetf_pipeline.demo.services import Services

    config = load_config(options.config, options.overrides)
    with TemporaryDirectory(prefix="agetf-demo-") as folder:
        require_gradio(Path(folder))
        services = Services(config, workspace_of(config), Path(folder), options.model)
        launch(services, options.port, say, open_browser=not options.no_browser)
    return 0
