"""A PostgreSQL of Debian's packages in a temporary folder, set up as compose's is."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE_S = 60


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def find_programs() -> Path:
    """Return the newest folder with `initdb`, `postgres` and `pg_ctl`."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name))
    folders = [folder for folder in folders if (folder / "initdb").is_file()]
    if not folders:
        raise SystemExit(
            "Expected PostgreSQL's server under /usr/lib/postgresql; found none. "
            "docker/test_postgres.sh installs it, or: apt-get install postgresql"
        )
    return folders[-1]


@contextmanager
def throwaway_postgres(folder: Path, passwords: Mapping[str, str]) -> Iterator["Postgres"]:
    """Run a server on 127.0.0.1 while the block runs, set up by docker/postgres/init.sh.

    Args:
        folder: An empty folder; the server refuses to run as root, so it may become another user's.
        passwords: DAGSTER_PG_PASSWORD and MLFLOW_PG_PASSWORD.

    Yields:
        The server, which can be taken away and brought back.
    """
    programs, port = find_programs(), free_port()
    data, sockets = folder / "data", folder / "sockets"
    sockets.mkdir(parents=True)
    as_owner: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(sockets, "postgres")
        as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    create = [
        "initdb", "-D", str(data), "-U", "postgres", "--auth-local=trust",
        "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C",
    ]  # fmt: skip
    subprocess.run(
        [*as_owner, str(programs / create[0]), *create[1:]],
        check=True, cwd=folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": sockets,
        "fsync": "off",
    }
    chosen = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*as_owner, str(programs / "postgres"), "-D", str(data), *chosen]
    server = Postgres(folder, programs, port, command)
    server.start()
    try:
        subprocess.run(
            ["sh", str(REPOSITORY / "docker" / "postgres" / "init.sh")],
            env={
                **os.environ, **passwords, "PGHOST": str(sockets), "PGPORT": str(port),
                "POSTGRES_USER": "postgres",
            },
            check=True,
        )  # fmt: skip
        yield server
    finally:
        server.stop(signal.SIGINT)


class Postgres:
    """A server that tests start and stop.

    Attributes:
        port: Of 127.0.0.1.
    """

    def __init__(self, folder: Path, programs: Path, port: int, command: list[str]) -> None:
        self.port = port
        self._folder, self._programs, self._command = folder, programs, command
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        program = str(self._programs / "pg_isready")
        ready = [program, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit("PostgreSQL did not start; its log is beside its data.")
            time.sleep(0.1)

    def stop(self, number: int) -> None:
        """End it: by SIGINT in order, by SIGQUIT as a crash does, its clients cut off."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
