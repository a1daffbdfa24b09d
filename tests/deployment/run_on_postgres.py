"""A deployment without containers: the processes of compose.yaml over a real PostgreSQL.

`make test-postgres` runs it, with the repository and tests/unit/stages on PYTHONPATH. Everything
lies in a temporary folder and on 127.0.0.1, and ends with this process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services import Services, answers, ask, image_command, succeeds
from throwaway_postgres import Postgres, free_port, throwaway_postgres

REPOSITORY = Path(__file__).resolve().parents[2]
# Odd characters, such as a password that somebody makes up has.
PASSWORDS = {"DAGSTER_PG_PASSWORD": "Dag-ster.7~", "MLFLOW_PG_PASSWORD": "Ml-flow.7~"}
CONFIG = """
extends: {tests}
workspace: {{root: {workspace}}}
synthesize: {{num_ffhq_images: 12, num_caf_shards: 1, num_subjects_per_shard: 2}}
train: {{run_name: deployed}}
register_model: {{tracking_uri: "http://127.0.0.1:{mlflow}"}}
"""
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_RUN_PATIENCE_S = 180
_LAUNCH_PATIENCE_S = 60
_AWAY_S = 5


@dataclass(frozen=True)
class Deployment:
    """Where the parts of a running deployment are."""

    folder: Path
    ports: dict[str, int]
    environment: dict[str, str]

    @property
    def ui(self) -> str:
        """Address of the webserver."""
        return f"http://127.0.0.1:{self.ports['webserver']}"

    @property
    def mlflow(self) -> str:
        """Address of the MLflow server."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def workspace(self) -> Path:
        """Root of the workspace."""
        return self.folder / "workspace"


def main() -> int:
    """Run every check; return 0, or end with what failed."""
    # Started in the background by a shell, this process would hand an ignored SIGINT on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agetf-deployment-") as name:
        folder = Path(name)
        # PostgreSQL runs as another user than root, below this folder.
        folder.chmod(0o755)
        with throwaway_postgres(folder / "postgres", PASSWORDS) as postgres:
            deployment = _prepare(folder, postgres.port)
            _say("PostgreSQL: two databases, two roles")
            with _running(deployment) as services:
                check_pool(deployment)
                check_guard(deployment)
                check_runs(deployment)
                check_killed(deployment, services)
                check_database_away(deployment, postgres)
                check_registry(deployment)
                for service in ("daemon", "webserver", "code", "mlflow"):
                    _say(f"{service} stopped {services.stop(service):.1f} s after SIGTERM")
    _say(f"all held, {time.monotonic() - started_s:.0f} s")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _expect(holds: bool, text: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {text}")
    _say(text)


def _prepare(folder: Path, postgres: int) -> Deployment:
    ports = {name: free_port() for name in ("code", "webserver", "mlflow")} | {"postgres": postgres}
    home, logs, config = folder / "home", folder / "logs", folder / "config" / "deployed.yaml"
    for path in (home, logs, config.parent, folder / "artifacts"):
        path.mkdir()
    # As the images join them.
    parts = [REPOSITORY / "configs" / "dagster.yaml", REPOSITORY / "docker" / "dagster.yaml"]
    (home / "dagster.yaml").write_text("".join(part.read_text() for part in parts))
    config.write_text(
        CONFIG.format(
            tests=REPOSITORY / "configs" / "test.yaml",
            workspace=folder / "workspace",
            mlflow=ports["mlflow"],
        )
    )
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(postgres),
        "DAGSTER_PG_DB": "dagster",
        "DAGSTER_PG_USER": "dagster",
        "DAGSTER_PG_PASSWORD": PASSWORDS["DAGSTER_PG_PASSWORD"],
        "AGETF_CODE_HOST": "127.0.0.1",
        "AGETF_CODE_PORT": str(ports["code"]),
        "AGETF_LOGS": str(logs),
        "AGETF_CONFIG": str(config),
        "AGETF_HOSTS": "ages.example.org",
    }
    return Deployment(folder, ports, environment)


@contextmanager
def _running(deployment: Deployment) -> Iterator[Services]:
    """Start the services in compose's order and wait for the health checks that it waits for."""
    ports, environment = deployment.ports, deployment.environment
    services = Services(deployment.folder)
    local = {"0.0.0.0": "127.0.0.1", "/opt/agetf": str(REPOSITORY)}
    password = PASSWORDS["MLFLOW_PG_PASSWORD"]
    database = f"postgresql+psycopg2://mlflow:{password}@127.0.0.1:{ports['postgres']}/mlflow"
    try:
        services.start(
            "mlflow",
            image_command(
                "Dockerfile.dagster", "mlflow",
                local | {"5000": str(ports["mlflow"]),
                         "/mlflow/artifacts": str(deployment.folder / "artifacts")},
            ),
            environment | {"MLFLOW_BACKEND_STORE_URI": database,
                           "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                           "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost:*,127.0.0.1:*"},
        )  # fmt: skip
        for step in (["instance", "migrate"], ["instance", "concurrency", "set", "gpu", "1"]):
            _expect(succeeds(["dagster", *step], environment), f"dagster {' '.join(step)}")
        start_code(deployment, services)
        web = local | {"3000": str(ports["webserver"])}
        services.start(
            "webserver", image_command("Dockerfile.dagster", "webserver", web), environment
        )
        services.start("daemon", image_command("Dockerfile.dagster", "daemon", {}), environment)
        address = f"{deployment.ui}/server_info"
        _ready("webserver", services.wait("webserver", lambda: answers(address)))
        alive = ["dagster-daemon", "liveness-check"]
        _ready("daemon", services.wait("daemon", lambda: succeeds(alive, environment)))
        health = f"{deployment.mlflow}/health"
        _ready("mlflow", services.wait("mlflow", lambda: answers(health)))
        yield services
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix="agetf-deployment-logs-"))
        for log in deployment.folder.glob("*.log"):
            shutil.copy(log, kept)
        _say(f"what the services printed is kept in {kept}")
        raise
    finally:
        services.kill_all()


def start_code(deployment: Deployment, services: Services) -> None:
    """Start the code location and wait until it is healthy."""
    environment, port = deployment.environment, str(deployment.ports["code"])
    changes = {"0.0.0.0": "127.0.0.1", "/opt/agetf": str(REPOSITORY), "4000": port}
    services.start("code", image_command("Dockerfile", "code", changes), environment)
    check = ["dagster", "api", "grpc-health-check", "-p", port]
    _ready("code", services.wait("code", lambda: succeeds(check, environment)))


def _ready(name: str, waited_s: float) -> None:
    _say(f"{name} healthy after {waited_s:.1f} s more")


def check_pool(deployment: Deployment) -> None:
    """The pool's limit holds on PostgreSQL, and setting it at every start changes nothing."""
    from dagster import DagsterInstance

    os.environ.update(deployment.environment)
    with DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        name = type(storage).__name__
        _expect(name == "PostgresEventLogStorage", f"events are kept by {name}")
        first = storage.claim_concurrency_slot("gpu", "run-1", "step")
        second = storage.claim_concurrency_slot("gpu", "run-2", "step")
        _expect(first.is_claimed and not second.is_claimed, "one slot, one claim")
        again = ["dagster", "instance", "concurrency", "set", "gpu", "1"]
        _expect(succeeds(again, deployment.environment), "the limit can be set again")
        storage.free_concurrency_slots_for_run("run-1")
        second = storage.claim_concurrency_slot("gpu", "run-2", "step")
        _expect(second.is_claimed, "a freed slot goes to who waits")
        storage.free_concurrency_slots_for_run("run-2")
        slots = storage.get_concurrency_info("gpu")
        _expect(
            slots.slot_count == 1 and slots.active_slot_count == 0, "no slot is held in the end"
        )


def check_guard(deployment: Deployment) -> None:
    """The webserver answers under its names, and refuses foreign pages."""
    version = "query { version }"
    ask(deployment.ui, version, {}, {"Host": "ages.example.org"})
    for headers in ({"Host": "attacker.example"}, {"Origin": "http://attacker.example"}):
        try:
            ask(deployment.ui, version, {}, headers)
        except urllib.error.HTTPError as refusal:
            _expect(refusal.code == 403, f"refused: {headers}")
        else:
            raise SystemExit(f"FAILED: the webserver answered {headers}")


def launch(deployment: Deployment, job: str, assets: list[str]) -> str:
    """Launch assets of a job through GraphQL, as the UI does; return the run's id."""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "agetf",
        "pipelineName": job,
        "assetSelection": [{"path": [asset]} for asset in assets],
    }
    params = {"selector": selector, "runConfigData": {}, "mode": "default"}
    deadline = time.monotonic() + _LAUNCH_PATIENCE_S
    while True:
        answer = ask(deployment.ui, LAUNCH, {"params": params})["launchPipelineExecution"]
        if answer["__typename"] == "LaunchRunSuccess":
            return answer["run"]["runId"]
        # The webserver takes a moment to see that a code location is back.
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: launching {assets}: {json.dumps(answer)[:2000]}")
        time.sleep(1)


def wait_for_run(deployment: Deployment, run_id: str, until: frozenset[str] = ENDED) -> str:
    """Wait until a run has ended, or has a status of `until`; return the status."""
    deadline = time.monotonic() + _RUN_PATIENCE_S
    while time.monotonic() < deadline:
        status = ask(deployment.ui, STATUS, {"id": run_id})["runOrError"]["status"]
        if status in until:
            return status
        time.sleep(0.5)
    return f"not ended after {_RUN_PATIENCE_S} s"


def check_runs(deployment: Deployment) -> None:
    """Assets materialise through the queue, and their events are rows of PostgreSQL."""
    import psycopg2

    for job, asset in (("corpus", "synthetic_corpus"), ("relabel", "ffhq_images")):
        started_s = time.monotonic()
        run_id = launch(deployment, job, [asset])
        status = wait_for_run(deployment, run_id)
        _expect(status == "SUCCESS", f"{asset}: {status}, {time.monotonic() - started_s:.1f} s")
        with psycopg2.connect(
            host="127.0.0.1", port=deployment.ports["postgres"], dbname="dagster", user="dagster",
            password=PASSWORDS["DAGSTER_PG_PASSWORD"],
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            cursor.execute(
                "SELECT count(*) FROM event_logs WHERE run_id = %s AND asset_key = %s "
                "AND dagster_event_type = 'ASSET_MATERIALIZATION'",
                (run_id, json.dumps([asset])),
            )
            (count,) = cursor.fetchone()
        connection.close()
        _expect(count == 1, f"{asset}: its materialisation is a row of event_logs")
    images = deployment.workspace / "data" / "tables" / "images" / "ffhq_aging.parquet"
    _expect(images.is_file(), "the workspace holds the table")


def check_killed(deployment: Deployment, services: Services) -> None:
    """A run that dies with its container ends when the container is started again."""
    run_id = launch(deployment, "relabel", ["ffhq_images"])
    status = wait_for_run(deployment, run_id, ENDED | {"STARTED"})
    _expect(status == "STARTED", "a run is under way")
    services.kill("code")
    status = ask(deployment.ui, STATUS, {"id": run_id})["runOrError"]["status"]
    _expect(status == "STARTED", "killed with its container, it still seems to be")
    start_code(deployment, services)
    status = wait_for_run(deployment, run_id)
    _expect(status == "FAILURE", "started again, the container has ended it")


def check_database_away(deployment: Deployment, postgres: Postgres) -> None:
    """PostgreSQL crashes under a run and comes back: the run ends, and another one goes on."""
    run_id = launch(deployment, "relabel", ["ffhq_images"])
    status = wait_for_run(deployment, run_id, ENDED | {"STARTED"})
    _expect(status == "STARTED", "a run is under way")
    postgres.stop(signal.SIGQUIT)
    time.sleep(_AWAY_S)
    postgres.start()
    _say(f"PostgreSQL was away for {_AWAY_S} s")
    status = wait_for_run(deployment, run_id)
    _expect(status in ENDED, f"the run has ended: {status}")
    again = launch(deployment, "relabel", ["ffhq_images"])
    status = wait_for_run(deployment, again)
    _expect(status == "SUCCESS", f"launched again: {status}")
    alive = ["dagster-daemon", "liveness-check"]
    deadline_s = time.monotonic() + _LAUNCH_PATIENCE_S
    while not succeeds(alive, deployment.environment):
        if time.monotonic() > deadline_s:
            raise SystemExit("FAILED: the daemon is not alive")
        time.sleep(1)
    _say("the daemon is alive, not started anew")


def check_registry(deployment: Deployment) -> None:
    """A model is registered in the MLflow server, its weights in the server's folder."""
    from test_stage_register import make_run

    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.registry.tracking import connected

    # Networks that learnt nothing: what is tested is the way into the registry.
    make_run(Workspace(deployment.workspace), "deployed", seed=1, mae_years=8.0)
    run_id = launch(deployment, "pipeline", ["registered_model"])
    status = wait_for_run(deployment, run_id)
    _expect(status == "SUCCESS", f"registered_model: {status}")
    with connected(deployment.mlflow) as client:
        version = client.get_model_version_by_alias("age-transformer", "champion")
        _expect(str(version.version) == "1", "age-transformer@champion is version 1")
    stored = list((deployment.folder / "artifacts").rglob("*.safetensors"))
    _expect(len(stored) >= 1, "the server holds its weights")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"FAILED: {error}")
