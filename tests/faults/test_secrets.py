"""Credentials in the environment, and a server that repeats them: none is kept or shown."""

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from tiny_shards import REPOSITORY
from training_workspace import make_workspace

from agetf_pipeline.core.errors import UnavailableError
from assets.retries import failing_readably
from resources import pipeline  # noqa: F401 - as whatever process of Dagster loads it

USER, PASSWORD = "somebody", "pa55-w0rd-of-mlflow"
SECRETS = {
    "MLFLOW_TRACKING_USERNAME": USER,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPx",
    "PGPASSWORD": "pa55-w0rd-of-postgres",
    "HF_TOKEN": "hf_0123456789abcdef",
    "AGETF_STORAGE_OPTIONS": '{"s3": {"secret": "shared-storage-secret"}}',
}
TOLD = [
    *(value for name, value in SECRETS.items() if name not in (
        "MLFLOW_TRACKING_USERNAME", "AGETF_STORAGE_OPTIONS",
    )),
    "shared-storage-secret",
    "SIGNED0123456789",
    base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
]  # fmt: skip
SIGNED = "https://bucket.s3.example/k?X-Amz-Credential=AKIA&X-Amz-Signature=SIGNED0123456789"


class Repeats(BaseHTTPRequestHandler):
    """Answers every request with an error that holds its credentials, as careless proxies do."""

    def _answer(self) -> None:
        said = self.headers.get("Authorization", "none")
        message = f"denied: Authorization: {said} for {SIGNED}"
        body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": message}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Repeats) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def told_in(text: str) -> list[str]:
    return [secret for secret in TOLD if secret in text]


def told_below(folder: Path) -> list[tuple[str, str]]:
    """Return every file that holds a secret, in plain or in a database's pages."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [(path.name, secret) for secret in TOLD if secret.encode() in data]
    return found


def test_a_stage_and_a_bad_server_leave_no_credential_behind(tmp_path, server):
    root = tmp_path / "workspace"
    make_workspace(root)
    config = tmp_path / "configs" / "own.yaml"
    config.parent.mkdir()
    config.write_text(
        f"""workspace: {{root: {root}}}
runtime: {{device: cpu, num_threads: 1}}
synthesize: {{enabled: true}}
distill: {{num_steps: 2, batch_size: 4, width: 8}}
train: {{run_name: tiny, model: tiny-64, num_images: 4, batch_size: 2, ages_per_image: 2,
  log_every_images: 2, num_sample_faces: 2}}
register_model: {{tracking_uri: '{server}'}}
"""
    )
    script = (
        "from agetf_pipeline.cli import main\n"
        f"config = ['--config', {str(config)!r}]\n"
        "codes = [main(['distill', *config]), main(['train', *config]),\n"
        "         main(['registry', 'list', *config]),\n"
        f"         main(['pull', *config, 'ingest.caf.source_uri={SIGNED}']),\n"
        "         main(['registry', 'list', *config,\n"
        f"               'register_model.tracking_uri=http://{USER}:{PASSWORD}@127.0.0.1:1'])]\n"
        "print(codes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | SECRETS | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "[0, 0, 1, 1, 1]" in done.stdout, done.stdout + done.stderr
    assert "Expected the registry" in done.stderr
    assert "denied" in done.stderr  # the server's words came through, and
    assert "***" in done.stderr  # what it repeated did not
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr  # the last one: the variable to use instead
    assert "Traceback" not in done.stderr
    assert told_in(done.stdout + done.stderr) == []
    assert list((root / "outputs" / "experiments").rglob("config.yaml"))
    assert told_below(root) == []


@pytest.mark.parametrize("kind", [UnavailableError, RuntimeError])
def test_dagster_keeps_no_credential_of_a_failed_step(tmp_path, monkeypatch, kind):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def failing() -> None:
        logging.getLogger("agetf_pipeline.x").warning("asking %s", SIGNED)
        with failing_readably():
            try:
                raise ValueError(f"{SIGNED} with {PASSWORD}")
            except ValueError as cause:
                raise kind(f"Expected an answer; found 403 for {SIGNED}: {PASSWORD}.") from cause

    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("python_logs: {managed_python_loggers: [agetf_pipeline]}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = dg.materialize([failing], instance=instance, raise_on_error=False)
        assert not result.success
        # What comes with the environment by itself: Dagster records no variable's value.
    said = [
        str(event.message) for event in result.all_events if "FAILURE" in event.event_type_value
    ]
    assert said
    assert told_below(home) == []
