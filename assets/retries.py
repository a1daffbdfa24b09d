"""What a failed step means: wait and try again, or let a person act.

A step is tried again only where what stopped it can pass by itself: a server that does not answer,
a file system that is away for a moment. Every other error of the library says what a person has to
do; doing the same again would say it again, later.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from agetf_pipeline.core.errors import AgetfError, DeviceLostError, UnavailableError
from agetf_pipeline.core.secrets import redact, tells_secrets
from agetf_pipeline.core.storage_errors import storage_error

_LOGGER = logging.getLogger(__name__)
_EXECUTOR_VARIABLE = "AGETF_EXECUTOR"
"""As in `jobs/executors.py`, which stands above the assets."""
_PASSING_ERRNOS = frozenset(
    {errno.ESTALE, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
     errno.EHOSTUNREACH, errno.ETIMEDOUT}
)  # fmt: skip

# MLflow's client has tried for about two minutes before it gives up; a server that is started
# anew, or a database that is moved, takes longer.
NETWORK_RETRIES = dg.RetryPolicy(
    max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
_REACHING_OUT = frozenset({"evaluate", "register"})
"""Stages that read or write the model registry, which may be a server."""

# A GPU that is lost once may be well in another process; one that is lost again needs a person. The
# same goes for processes that hang. What was finished is not done again.
COMPUTING_RETRIES = dg.RetryPolicy(max_retries=1, delay=60)
_COMPUTING = frozenset(
    {"train_experts", "train_evaluators", "train_enhancers", "predict", "enhance", "caption",
     "recheck", "train", "distill"}
)  # fmt: skip


def retry_policy(stage: str) -> dg.RetryPolicy | None:
    """Return when the step of a stage is tried again; None where nothing can pass by itself.

    For `failing_readably`, and not for the asset: of a step with a policy of its own, Dagster takes
    a termination for a failure, and tries it again.
    """
    if stage in _REACHING_OUT:
        return NETWORK_RETRIES
    return COMPUTING_RETRIES if stage in _COMPUTING else None


def _has_its_own_process() -> bool:
    """Whether a step that is tried again is tried in another process."""
    return os.environ.get(_EXECUTOR_VARIABLE, "in_process") != "in_process"


def passes_by_itself(error: BaseException) -> bool:
    """Whether the same step may succeed a minute later though nobody did anything."""
    if isinstance(error, UnavailableError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def _try_again(error: Exception, policy: dg.RetryPolicy | None, attempt: int) -> None:
    """Ask for another attempt; return where there is no policy, or none is left."""
    if policy is None or attempt >= policy.max_retries:
        return
    cause = UnavailableError(redact(f"{error}")) if tells_secrets(error) else error
    delay_s = policy.calculate_delay(attempt + 1)
    raise dg.RetryRequested(policy.max_retries, delay_s) from cause


@contextmanager
def failing_readably(policy: dg.RetryPolicy | None = None, attempt: int = 0) -> Iterator[None]:
    """Turn errors into failures of a step that say what to do and are not tried again.

    What passes by itself is tried again as the policy says; without one it is left as it is. A GPU
    that this process has lost comes back in another one alone: where all steps of a run share one,
    the run fails, and whoever launches it again has a new process. A failure of the library's own
    shows its message alone; where the cause is unknown, the traceback stays with it.

    Args:
        policy: When to try again.
        attempt: How often this step was tried before (`context.retry_number`).

    Raises:
        dagster.RetryRequested: It may pass by itself.
        dagster.Failure: For every other error; its description is the message.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except AgetfError as error:
        lost = isinstance(error, DeviceLostError) and not _has_its_own_process()
        if passes_by_itself(error) and not lost:
            _try_again(error, policy, attempt)
            if policy is None and tells_secrets(error):
                raise UnavailableError(redact(str(error))) from None
            if policy is None:
                raise
        _LOGGER.debug("the step failed", exc_info=True)
        kind = type(error).__name__
        raise dg.Failure(redact(str(error)), {"kind": kind}, allow_retries=False) from None
    except Exception as error:
        text = redact(f"{type(error).__name__}: {error}")
        if passes_by_itself(error):
            _try_again(error, policy, attempt)
            if policy is None and tells_secrets(error):
                raise UnavailableError(text) from None
            if policy is None:
                raise
        stored = storage_error(error, Path.cwd())
        if stored is not None:
            kind = type(stored).__name__
            raise dg.Failure(redact(str(stored)), {"kind": kind}, allow_retries=False) from None
        # Dagster keeps the traceback of the cause, and what the cause says.
        cause = None if tells_secrets(error) else error
        raise dg.Failure(text, {"kind": "unexpected"}, allow_retries=False) from cause
