"""Where steps run: in the run's own process, or each in a process or a pod of its own.

A deployment chooses by environment: the same code location serves one machine and a cluster.

- AGETF_EXECUTOR: `in_process` (default), `processes` (of one run as many at a time as there are
  GPUs, at least two) or `k8s`.
- AGETF_STEP_GPUS: GPUs that a step of the pool `gpu` asks Kubernetes for, and of single assets:
  `1`, or `1,age_transformer=4`.
- AGETF_STEP_CPUS: likewise the cores of every step: what its pod asks for, and the threads that it
  computes with. A pod sees all cores of its node, whatever it may use.
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
CPUS_VARIABLE = "AGETF_STEP_CPUS"
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

    made = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    pooled = [asset.op.name for asset in made if asset.op.pool == GPU_POOL]
    requests = {
        name: dict(request)
        for name, request in gpu_requests(pooled, os.environ.get(GPUS_VARIABLE, "1")).items()
    }
    if cpus := os.environ.get(CPUS_VARIABLE):
        for name, request in cpu_requests([asset.op.name for asset in made], cpus).items():
            whole = requests.setdefault(name, {})
            whole["container_config"] = _joined(whole.get("container_config", {}), request)
    return k8s_job_executor.configured({"per_step_k8s_config": requests}, name="k8s")


def gpu_requests(steps: Iterable[str], spelling: str) -> dict[str, Mapping[str, Any]]:
    """Return what the pods of GPU steps ask Kubernetes for, by step.

    Args:
        steps: Names of the steps.
        spelling: GPUs of a step, and after commas those of single steps; 0 asks for none.

    Raises:
        ConfigError: The spelling is another, or names a step that does not use a GPU.
    """
    counts = _counts(steps, spelling, GPUS_VARIABLE, f"assets of the pool {GPU_POOL}")
    return {name: _request(count) for name, count in counts.items() if count}


def cpu_requests(steps: Iterable[str], spelling: str) -> dict[str, dict[str, Any]]:
    """Return what the containers of steps ask for, and are told, of cores, by step.

    Args:
        steps: Names of the steps.
        spelling: Cores of a step, and after commas those of single steps; 0 says nothing.

    Raises:
        ConfigError: The spelling is another, or names a step that there is not.
    """
    counts = _counts(steps, spelling, CPUS_VARIABLE, "assets")
    return {
        name: {
            "resources": {"requests": {"cpu": str(count)}},
            "env": [{"name": "OMP_NUM_THREADS", "value": str(count)}],
        }
        for name, count in counts.items()
        if count
    }


def _counts(steps: Iterable[str], spelling: str, variable: str, what: str) -> dict[str, int]:
    """Return the number of each step, as a variable of the environment spells them."""
    names = list(steps)
    default, *singles = (part.strip() for part in spelling.split(","))
    counts = dict.fromkeys(names, default)
    for single in singles:
        name, _, count = single.partition("=")
        if name not in counts:
            raise ConfigError(f"Expected {variable} to name {what} ({names}); found {name!r}.")
        counts[name] = count
    if not all(count.isdecimal() for count in [default, *counts.values()]):
        raise ConfigError(
            f"Expected {variable} such as `1` or `1,age_transformer=4`; found {spelling!r}."
        )
    return {name: int(count) for name, count in counts.items()}


def _joined(container: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    resources = {**container.get("resources", {}), **more["resources"]}
    return {**container, **more, "resources": resources}


def _request(count: int) -> Mapping[str, Any]:
    return {
        "container_config": {"resources": {"limits": {_RESOURCE: str(count)}}},
        # Nodes with GPUs are commonly kept free of pods that ask for none.
        "pod_spec_config": {
            "tolerations": [{"key": _RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
        },
    }
