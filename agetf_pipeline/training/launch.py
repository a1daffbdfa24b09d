"""Training in several processes, started as `torchrun` starts them, and listened to.

The children write one JSON object a line on stdout: progress (with losses and checkpoints in its
text), then the report, or the error. They read a pipe that nothing is written to: when it closes,
whoever held the other end is gone, and they leave.
"""

import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import is_device_lost, lost_device
from agetf_pipeline.core.errors import AgetfError, StageError, UnavailableError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.leases import join_leases
from agetf_pipeline.core.parallel import hanging
from agetf_pipeline.core.patience import slices_of
from agetf_pipeline.core.progress import ProgressEvent, relay
from agetf_pipeline.core.work import StageReport
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)
_REPOSITORY = Path(__file__).resolve().parents[2]
_TOKEN = "AGETF_LAUNCH"
_TAIL_LINES = 15
_GRACE_S = 5.0


def launch(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train in `train.num_processes` processes of this machine; return what the first reports.

    However this call ends, none of them is left.

    Raises:
        ConfigError: The number of processes does not divide the batch.
        StageError: A process failed; with its message.
        UnavailableError: They are silent for `runtime.max_silence_s`, or one lost its GPU.
    """
    from agetf_pipeline.training.distributed import World, rows_of

    rows_of(World(size=config.train.num_processes), config.train.batch_size)
    file = write_launch_config(config, workspace)
    with _started(command_of(file, config.train.num_processes), config) as child:
        return _listen(child, config.runtime.max_silence_s)


def command_of(file: Path, num_processes: int) -> list[str]:
    """Return the command: torchrun's, by its module's name, which needs no PATH."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={num_processes}",
        "-m", "agetf_pipeline.training", "--config", str(file), "--for-a-stage",
    ]  # fmt: skip


def write_launch_config(config: PipelineConfig, workspace: Workspace) -> Path:
    """Write the resolved configuration for the children; what was not given stays a default."""
    import yaml

    values = config.model_dump(mode="json", exclude_unset=True)
    values["workspace"] = {"root": str(workspace.root.resolve())}
    init_from = config.train.init_from
    if init_from is not None:
        values["train"]["init_from"] = str(init_from.resolve())
    path = workspace.state / "launch" / f"{config.train.run_name}.yaml"
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return path


def emit(kind: str, content: Mapping[str, Any]) -> None:
    """Write one line for the process that listens."""
    sys.stdout.write(json.dumps({"event": kind, **content}) + "\n")
    sys.stdout.flush()


def emit_progress(event: ProgressEvent) -> None:
    """Pass a progress event on."""
    emit("progress", {"progress": asdict(event)})


def emit_error(error: BaseException) -> None:
    """Pass on what ended this process."""
    if is_device_lost(error):
        error = lost_device(error)
    text = str(error) if isinstance(error, AgetfError) else f"{type(error).__name__}: {error}"
    passes = isinstance(error, UnavailableError)
    emit(
        "error",
        {"message": text, "on_purpose": isinstance(error, AgetfError), "passes": passes},
    )


def leave_with_the_parent() -> None:
    """End this process, at once and whatever it does, when stdin's other end closes.

    Its devices are its own from here on: nobody gets them before it is dead.
    """

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        os._exit(1)

    join_leases()
    there = select.poll()
    there.register(sys.stdin, 0)  # asks for nothing: a closed other end is told of anyway
    if there.poll(0):
        os._exit(1)  # the lessee died before these were shared
    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


@contextmanager
def _started(command: list[str], config: PipelineConfig) -> Iterator[subprocess.Popen[str]]:
    token = uuid.uuid4().hex
    environment = os.environ | {_TOKEN: token}
    paths = [str(_REPOSITORY), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    # torchrun would give each process one thread.
    cores = len(os.sched_getaffinity(0)) // config.train.num_processes
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
    _LOGGER.info("starting %s", " ".join(command))
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _end(child, token)


def _listen(child: subprocess.Popen[str], max_silence_s: float) -> StageReport:
    """Relay what the children say until they end.

    A process that stops makes the others wait for it in their next exchange: so it shows, as one
    that hangs itself does, in that nobody says anything any more.
    """
    assert child.stderr is not None
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    reader = threading.Thread(target=_keep_tail, args=(child.stderr, tail), daemon=True)
    reader.start()
    report: StageReport | None = None
    errors: list[dict[str, Any]] = []
    for line in _lines_of(child, max_silence_s):
        event = _event_of(line)
        if event is None:
            _LOGGER.info("%s", line.rstrip())
        elif event["event"] == "progress":
            relay(ProgressEvent(**event["progress"]))
        elif event["event"] == "report":
            report = StageReport(**event["report"])
        elif event["event"] == "error":
            errors.append(event)
    code = child.wait()
    reader.join(timeout=_GRACE_S)
    if report is not None and code == 0:
        return report
    # One fails for a reason, the others because they lost it.
    reasons = [error for error in errors if error["on_purpose"]] or errors
    what = reasons[0]["message"] if reasons else f"exit code {code}\n" + "\n".join(tail)
    passes = any(error.get("passes") for error in errors)
    raise (UnavailableError if passes else StageError)(
        f"Training in several processes stopped. {what}"
    )


def _lines_of(child: subprocess.Popen[str], max_silence_s: float) -> Iterator[str]:
    """Yield what the children print.

    Raises:
        UnavailableError: They printed nothing for so long. (The caller ends them.)
    """
    assert child.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(stream: IO[str]) -> None:
        with suppress(ValueError):  # closed by whoever ended the children
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, args=(child.stdout,), name="listen", daemon=True).start()
    while (line := _next_line(lines, max_silence_s)) is not None:
        yield line


def _next_line(lines: "queue.SimpleQueue[str | None]", max_silence_s: float) -> str | None:
    for slice_s in slices_of(max_silence_s):
        with suppress(queue.Empty):
            return lines.get(timeout=slice_s)
    raise hanging("the processes that train", max_silence_s)


def _event_of(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _keep_tail(stream: IO[str], tail: deque[str]) -> None:
    for line in stream:
        tail.append(line.rstrip())
        _LOGGER.debug("%s", line.rstrip())


def _end(child: subprocess.Popen[str], token: str) -> None:
    """End torchrun and its processes: they are of sessions of their own, so by their token."""
    assert child.stdin is not None
    with suppress(OSError):
        child.stdin.close()
    _signal(child, token, signal.SIGTERM)
    deadline_s = time.monotonic() + _GRACE_S
    while _members(token) and time.monotonic() < deadline_s:
        child.poll()
        time.sleep(0.05)
    _signal(child, token, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _signal(child: subprocess.Popen[str], token: str, number: int) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
    for pid in _members(token):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _members(token: str) -> list[int]:
    """Processes that were started with the token in their environment, and are not zombies."""
    wanted = f"{_TOKEN}={token}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
