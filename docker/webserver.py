"""Dagster's webserver behind the guard, over the code location that workspace.yaml names.

The one of `make ui` (jobs/serve.py) starts a daemon and loads the definitions itself; in a
container neither is wanted. DAGSTER_HOME says where the instance is, AGETF_HOSTS under which names
beside loopback a proxy asks for it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.guard import LOCAL_HOSTS, OriginGuard

_WORKSPACE = Path(__file__).resolve().with_name("workspace.yaml")
_GRACE_S = 5
"""How long open pages are waited for at the end; they hold a socket as long as they are open."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return 0."""
    parser = argparse.ArgumentParser(prog="webserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    options = parser.parse_args(arguments)

    import dagster as dg
    import uvicorn
    from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_shared.cli import WorkspaceOpts
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    target = workspace_opts_to_load_target(WorkspaceOpts(workspace=(str(_WORKSPACE),)))
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, version=__version__, workspace_load_target=target
        ) as context,
    ):
        app = OriginGuard(create_app_from_workspace_process_context(context), allowed_hosts())
        uvicorn.run(
            app,
            host=options.host,
            port=options.port,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE_S,
        )
    return 0


def allowed_hosts() -> list[str]:
    """Return the names under which the page may be asked for: loopback, and AGETF_HOSTS."""
    named = os.environ.get("AGETF_HOSTS", "").split(",")
    return [*LOCAL_HOSTS, *(name.strip().lower() for name in named if name.strip())]


if __name__ == "__main__":
    sys.exit(main())
