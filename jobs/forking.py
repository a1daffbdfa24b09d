"""Steps in processes of their own, forked from a server that has loaded what takes long."""

import dagster as dg

PRELOADED = [
    "torch",
    "polars",
    "great_expectations",
    "definitions",
    "dagster._cli",
    "dagster._core.executor.multiprocess",
]
"""What the server has loaded; nothing of it starts CUDA, which would not outlive a fork."""


def forking_executor(max_concurrent: int) -> dg.ExecutorDefinition:
    """Return an executor that forks a process for each step, so many at a time."""
    start = {"forkserver": {"preload_modules": PRELOADED}}
    return dg.multiprocess_executor.configured(
        {"max_concurrent": max_concurrent, "start_method": start}, name="processes"
    )
