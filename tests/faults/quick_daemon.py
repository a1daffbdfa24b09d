"""Dagster's daemon, looking at backfills every two seconds instead of every thirty."""

import os

from dagster._daemon import controller

controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2

if __name__ == "__main__":
    from dagster._daemon.cli import cli

    cli(["run", "-w", os.environ["AGETF_WORKSPACE_FILE"]])
