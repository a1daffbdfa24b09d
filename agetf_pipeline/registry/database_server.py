"""A registry in the database of a server (PostgreSQL, MySQL): whether it can be reached."""

import re
import time

from agetf_pipeline.core.errors import ConfigError

_SERVER = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://")
_REFUSALS = re.compile(
    r"authentication failed|access denied|no pg_hba\.conf entry|no password supplied"
    r"|(database|role) .* does not exist|unknown database|login failed",
    re.IGNORECASE,
)
"""What a server says that is there, and will say again."""

WAITS_S = (2.0, 4.0)
"""Between the attempts to reach a server. MLflow's own take 107 s, and cannot be set."""
_CONNECT_TIMEOUT_S = 10


def is_database_server(tracking_uri: str) -> bool:
    """Whether a registry is the database of a server, without MLflow's server between."""
    return _SERVER.match(tracking_uri) is not None


def reach(tracking_uri: str) -> None:
    """Connect to the registry's database once, so that MLflow is spared one that is away.

    Does nothing for a registry that is no database of a server.

    Raises:
        ConfigError: The driver that the URI names is not installed, or there is none such.
        sqlalchemy.exc.DBAPIError: The server is away (see `is_away`) or refuses.
    """
    if not is_database_server(tracking_uri):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, DBAPIError
    from sqlalchemy.pool import NullPool

    # Of its own limit, a connection to a host that drops packets takes two minutes.
    limited = not tracking_uri.startswith("mssql")
    options = {"connect_timeout": _CONNECT_TIMEOUT_S} if limited else {}
    try:
        engine = create_engine(tracking_uri, poolclass=NullPool, connect_args=options)
    except (ImportError, ArgumentError) as error:
        package = getattr(error, "name", None)
        found = f"the package {package} is not installed" if package else str(error).rstrip(".")
        scheme = tracking_uri.partition("://")[0]
        raise ConfigError(
            f"Expected a driver for register_model.tracking_uri={scheme}://...; found that {found}."
            " Install it, or name one that is there, such as postgresql+psycopg2://."
        ) from error
    for wait_s in (*WAITS_S, None):
        try:
            with engine.connect():
                return
        except DBAPIError as error:
            if wait_s is None or not is_away(error):
                raise
        time.sleep(wait_s)


def is_away(error: BaseException) -> bool:
    """Whether SQLAlchemy's error says that the server is away, rather than that it refuses."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    return isinstance(error, OperationalError | InterfaceError) and not refuses(error)


def refuses(error: BaseException) -> bool:
    """Whether a server that is there refuses: the password, the database, the host asking."""
    return _REFUSALS.search(str(error)) is not None
