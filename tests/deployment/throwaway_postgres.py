"""A PostgreSQL of Debian's packages in a temporary folder, set up as compose's is."""

import os
import shutil
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
def throwaway_postgres(folder: Path, passwords: Mapping[str, str]) -> Iterator[int]:
    """Run a server on 127.0.0.1 while the block runs, set up by docker/postgres/init.sh.

    Args:
        folder: An empty folder; the server refuses to run as root, so it may become another user's.
        passwords: DAGSTER_PG_PASSWORD and MLFLOW_PG_PASSWORD.

    Yields:
        Its port.
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
    with (folder / "postgres.log").open("wb") as log:
        server = subprocess.Popen(
            [*as_owner, str(programs / "postgres"), "-D", str(data), *chosen],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(programs, port, server)
        subprocess.run(
            ["sh", str(REPOSITORY / "docker" / "postgres" / "init.sh")],
            env={
                **os.environ, **passwords, "PGHOST": str(sockets), "PGPORT": str(port),
                "POSTGRES_USER": "postgres",
            },
            check=True,
        )  # fmt: skip
        yield port
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(programs: Path, port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("PostgreSQL did not start; its log is beside its data.")
        time.sleep(0.1)
