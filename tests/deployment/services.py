"""The processes of compose.yaml, started by hand with the commands of the images."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE_S = 120
_STOP_S = 15
"""What `docker stop` waits at least with this project's settings, before it kills."""

_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def image_command(dockerfile: str, target: str, changes: Mapping[str, str]) -> list[str]:
    """Return the CMD of a Dockerfile's target, with some of its words changed.

    Programs are taken from the folder of this Python, where they are in it.
    """
    text = (REPOSITORY / "docker" / dockerfile).read_text(encoding="utf-8")
    stage = re.split(r"(?m)^FROM ", text.split(f" AS {target}\n", 1)[1])[0]
    words = json.loads(re.findall(r"(?m)^CMD (\[.*\])$", stage)[-1])
    program = Path(sys.executable).parent / words[0]
    first = str(program) if program.is_file() else words[0]
    return [first, *(changes.get(word, word) for word in words[1:])]


class Services:
    """Started processes, each leader of a group that ends with it.

    Args:
        logs: Folder for what they print.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen] = {}

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Start a process in the repository's root."""
        with self.log_of(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **environment, "PATH": _PATH},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log_of(self, name: str) -> Path:
        """Return the file that a process prints to."""
        return self._logs / f"{name}.log"

    def wait(self, name: str, healthy: Callable[[], bool]) -> float:
        """Wait until a process is healthy; return how long that took, in seconds."""
        started_s = time.monotonic()
        while not healthy():
            if self._running[name].poll() is not None:
                raise SystemExit(f"{name} ended by itself:\n{self._tail(name)}")
            if time.monotonic() - started_s > _PATIENCE_S:
                raise SystemExit(
                    f"{name} is not healthy after {_PATIENCE_S} s:\n{self._tail(name)}"
                )
            time.sleep(0.3)
        return time.monotonic() - started_s

    def stop(self, name: str) -> float:
        """Stop a process as an engine does, by SIGTERM; return how long it took, in seconds.

        Raises:
            SystemExit: It did not stop, or left processes of its group behind.
        """
        process = self._running[name]
        started_s = time.monotonic()
        process.terminate()
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"{name} runs {_STOP_S} s after SIGTERM:\n{self._tail(name)}"
            ) from None
        while _group_lives(process.pid):
            if time.monotonic() - started_s > _STOP_S:
                raise SystemExit(f"{name} stopped and left processes behind")
            time.sleep(0.1)
        del self._running[name]
        return time.monotonic() - started_s

    def kill(self, name: str) -> None:
        """End a process and all it started at once, as a container ends that runs out of memory."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        """End whatever still runs, with everything it started."""
        for process in self._running.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()

    def _tail(self, name: str) -> str:
        return self.log_of(name).read_text(encoding="utf-8", errors="replace")[-3000:]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def succeeds(command: list[str], environment: Mapping[str, str]) -> bool:
    """Whether a command of this Python's folder exits with 0."""
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def ask(
    url: str, query: str, variables: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> dict:
    """Send a GraphQL query; return its data."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"{url}/graphql", body, {"Content-Type": "application/json", **(headers or {})}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    if "errors" in answer:
        raise SystemExit(f"GraphQL refused: {answer['errors']}")
    return answer["data"]
