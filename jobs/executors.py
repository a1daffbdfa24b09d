"""Where steps run: in the run's own process, or each in a process or a pod of its own.

A deployment chooses by environment: the same code location serves one machine and a cluster.

- AGETF_EXECUTOR: `in_process` (default), `processes` (of one run as many at a time as there are
  GPUs, at least two) or `k8s`.
- AGETF_STEP_GPUS: GPUs that a step of the pool `gpu` asks Kubernetes for, and of single assets:
  `1`, or `1,age_transformer=4`.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from agetf_pipeline.core.errors import ConfigError
from jobs.forking import forking_executor
from resources.gpu import GPU_POOL, count_devices

EXECUTOR_VARIABLE = "AGETF_EXECUTOR"
GPUS_VARIABLE = "AGETF_STEP_GPUS"
_RESOURCE = "nvidia.com/gpu"


def deployed_executor(assets: Iterable[Any]) -> dg.ExecutorDefinition:
    """Return the executor that this deployment names.

    Args:
        assets: Of the code location; those of the pool `gpu` get devices.

    Raises:
        ConfigError: A variable does not read as it should.
    """
    name = os.environ.get(EXECUTOR_VARIABLE, "in_process")
    if name == "in_process":
        # Starting a process for each step costs more than most of them do.
        return dg.in_process_executor
    if name == "processes":
        return forking_executor(max(2, count_devices()))
    if name != "k8s":
        raise ConfigError(
            f"Expected {EXECUTOR_VARIABLE} to be in_process, processes or k8s; found {name!r}. "
            "Correct the deployment's environment."
        )
    from dagster_k8s import k8s_job_executor

    steps = [
        asset.op.name
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition) and asset.op.pool == GPU_POOL
    ]
    requests = gpu_requests(steps, os.environ.get(GPUS_VARIABLE, "1"))
    return k8s_job_executor.configured({"per_step_k8s_config": requests}, name="k8s")


def gpu_requests(steps: Iterable[str], spelling: str) -> dict[str, Mapping[str, Any]]:
    """Return what the pods of GPU steps ask Kubernetes for, by step.

    Args:
        steps: Names of the steps.
        spelling: GPUs of a step, and after commas those of single steps; 0 asks for none.

    Raises:
        ConfigError: The spelling is another, or names a step that does not use a GPU.
    """
    names = list(steps)
    default, *singles = (part.strip() for part in spelling.split(","))
    counts = dict.fromkeys(names, default)
    for single in singles:
        name, _, count = single.partition("=")
        if name not in counts:
            raise ConfigError(
                f"Expected {GPUS_VARIABLE} to name assets of the pool {GPU_POOL} ({names}); "
                f"found {name!r}."
            )
        counts[name] = count
    odd = [count for count in counts.values() if not count.isdecimal()]
    if odd:
        raise ConfigError(
            f"Expected {GPUS_VARIABLE} such as `1` or `1,age_transformer=4`; found {spelling!r}."
        )
    return {name: _request(int(count)) for name, count in counts.items() if int(count)}


def _request(count: int) -> Mapping[str, Any]:
    return {
        "container_config": {"resources": {"limits": {_RESOURCE: str(count)}}},
        # Nodes with GPUs are commonly kept free of pods that ask for none.
        "pod_spec_config": {
            "tolerations": [{"key": _RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
        },
    }
