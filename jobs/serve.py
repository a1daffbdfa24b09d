"""The Dagster UI and daemon on loopback: `python -m jobs.serve --home .dagster_home/demo`."""

import argparse
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from agetf_pipeline.core.devices import prepare_process
from agetf_pipeline.core.ending import describe_bug
from agetf_pipeline.core.errors import StageError
from jobs.ending import describe_end
from jobs.guard import OriginGuard
from jobs.launch import prepare_home
from jobs.stale_runs import watch
from resources.gpu import GPU_POOL, count_devices
from resources.pipeline import REPOSITORY

_HOST = "127.0.0.1"
_WORKSPACE = str(REPOSITORY / "workspace.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.serve", description=__doc__)
    parser.add_argument("--home", required=True, type=Path, help="folder of the Dagster instance")
    parser.add_argument("--port", type=int, default=3000)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    prepare_process()
    try:
        return _serve_home(options.home.resolve(), options.port)
    except Exception as error:
        message, code = describe_end(error, options.home.resolve()) or describe_bug(error)
        print(message, file=sys.stderr)  # noqa: T201
        return code


def _serve_home(home: Path, port: int) -> int:
    """Serve until interrupted, with the daemon beside the webserver."""
    prepare_home(home)
    # A terminal's Ctrl-C reaches the whole group; `kill` reaches this process alone.
    signal.signal(signal.SIGTERM, _interrupt)
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots(GPU_POOL, max(1, count_devices()))
        stop = threading.Event()
        watching = watch(instance, stop)
        daemon = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", _WORKSPACE],
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        try:
            _serve(instance, port)
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            watching.join()
            daemon.terminate()
            daemon.wait(timeout=30)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _serve(instance: dg.DagsterInstance, port: int) -> None:
    import uvicorn
    from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._utils import is_port_in_use
    from dagster_shared.cli import WorkspaceOpts
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    if is_port_in_use(_HOST, port):
        raise StageError(
            f"Expected port {port} to be free; something listens on it. "
            f"Choose another: make ui PORT={port + 1}"
        )
    target = workspace_opts_to_load_target(WorkspaceOpts(workspace=(_WORKSPACE,)))
    with WorkspaceProcessContext(
        instance, version=__version__, workspace_load_target=target
    ) as context:
        app = create_app_from_workspace_process_context(context)
        print(f"Dagster is on http://{_HOST}:{port} (Ctrl-C ends it)", flush=True)  # noqa: T201
        uvicorn.run(OriginGuard(app), host=_HOST, port=port, log_level="warning")


if __name__ == "__main__":
    sys.exit(main())
