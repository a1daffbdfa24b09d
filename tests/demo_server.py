"""`agetf demo` for tests: the app over a copy of a finished run, as a person starts it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from main_job import REPOSITORY, GraphRun, write_config

_START_S = 120.0


@contextmanager
def serve_demo(run: GraphRun, folder: Path) -> Iterator[str]:
    """Serve a copy of a run in `folder`; give the address; end it."""
    shutil.copytree(run.workspace.root, folder / "workspace")
    config = write_config(folder, folder / "workspace")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "agetf_pipeline.cli", "demo", "--config", str(config)]
    log = folder / "demo.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--no-browser"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ends = time.monotonic() + _START_S
        while "The demo is at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
