"""A real MLflow server on the loopback, which tests kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

_START_S = 120


class MlflowServer:
    """A server over an SQLite file and a folder of artifacts, as `mlflow server` starts it.

    Args:
        folder: For the database, the artifacts and the log; what is there is served again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        self._process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        """Where it answers, whenever it runs."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self._folder / "server.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                    "--port", str(self._port), "--workers", "1",
                    "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}",
                    "--artifacts-destination", (self._folder / "artifacts").as_uri(),
                ],
                cwd=self._folder, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            assert self._process.poll() is None, log.read_text()[-3000:]
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError(f"no answer after {_START_S} s: {log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it at once, with the processes that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send a signal to it and the processes that it started."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
