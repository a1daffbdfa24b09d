"""Configuration resource and GPU leases."""

import multiprocessing
import os
import signal

import pytest

from agetf_pipeline.core.errors import ConfigError
from resources import gpu
from resources.gpu import GpuResource
from resources.pipeline import CONFIG_VARIABLE, PipelineResource


def test_a_run_may_name_a_file_of_configs():
    config, _ = PipelineResource(config="configs/test.yaml").load()
    assert config.synthesize.num_caf_shards == 2


@pytest.mark.parametrize("name", ["/etc/passwd", "configs/../../x.yaml", "tests/x.yaml"])
def test_a_run_may_not_name_another_file(name):
    with pytest.raises(ConfigError, match="configs/"):
        PipelineResource(config=name).load()


def test_a_run_may_not_move_the_workspace():
    with pytest.raises(ConfigError, match="workspace"):
        PipelineResource(overrides=["workspace.root=/tmp"]).load()


def test_the_deployment_may_name_any_file(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "own.yaml").write_text(f"workspace: {{root: {tmp_path}}}")
    monkeypatch.setenv(CONFIG_VARIABLE, str(folder / "own.yaml"))
    _, workspace = PipelineResource().load()
    assert workspace.root == tmp_path


def _hold(folder, queue):
    with GpuResource(num_devices=2, lock_folder=str(folder)).lease() as device:
        queue.put((device, os.environ["CUDA_VISIBLE_DEVICES"]))
        signal.pause()


def test_a_killed_holder_frees_its_device(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    holders = [context.Process(target=_hold, args=(tmp_path, queue)) for _ in range(2)]
    for holder in holders:
        holder.start()
    held = sorted(queue.get(timeout=60) for _ in holders)
    assert held == [("cuda:0", "0"), ("cuda:0", "1")]  # each sees one device, its own
    os.kill(holders[0].pid, signal.SIGKILL)
    with GpuResource(num_devices=2, lock_folder=str(tmp_path)).lease() as device:
        assert device == "cuda:0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    holders[1].kill()
    for holder in holders:
        holder.join()


def test_a_machine_without_gpus_gets_one_slot(tmp_path):
    with GpuResource(num_devices=0, lock_folder=str(tmp_path)).lease() as device:
        assert device == "cpu"
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    "override",
    [
        "runtime.allow_unverified_weights=true",
        " runtime.models_catalogue=other.yaml",
        "runtime={allow_unverified_weights: true}",
        "runtime ={allow_unverified_weights: true}",
        "\truntime\t={models_catalogue: configs/age_anchors.yaml}",
        "runtime.allow_unverified_weights =true",
        "runtime.allow_unverified_weights\u00a0= 1",
    ],
)
def test_a_run_cannot_switch_the_verification_of_weights_off(override):
    with pytest.raises(ConfigError, match="verification of weights"):
        PipelineResource(overrides=[override]).load()


def test_several_devices_are_leased_together_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pool = GpuResource(num_devices=3, lock_folder=str(tmp_path))
    with pool.lease(2) as device:
        assert device == "cuda"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
        with pool.lease() as other:
            assert other == "cuda:0"
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    with pool.lease(3) as device:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    with pytest.raises(ConfigError, match="found 3"), pool.lease(4):
        pass
    with GpuResource(num_devices=0, lock_folder=str(tmp_path)).lease(4) as device:
        assert device == "cpu"


def test_a_process_keeps_to_the_device_that_its_cuda_was_started_on(tmp_path, monkeypatch):
    started = False
    monkeypatch.setattr(gpu, "_seen", [])
    monkeypatch.setattr(gpu, "_cuda_has_started", lambda: started)
    pool = GpuResource(num_devices=3, lock_folder=str(tmp_path))
    with pool.lease():  # device 0, held by another run
        with pool.lease() as device:
            assert (device, os.environ["CUDA_VISIBLE_DEVICES"]) == ("cuda:0", "1")
            started = True
        assert gpu._seen == ["1"]
    with pool.lease() as device:
        # Device 0 is free again; CUDA would show device 1 under any mask.
        assert (device, os.environ["CUDA_VISIBLE_DEVICES"]) == ("cuda:0", "1")
    with pool.lease(3) as device:  # for processes that are yet to start
        assert (device, os.environ["CUDA_VISIBLE_DEVICES"]) == ("cuda", "0,1,2")


def test_a_process_that_sees_all_devices_names_the_one_it_leased(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_seen", [])
    monkeypatch.setattr(gpu, "_cuda_has_started", lambda: True)
    pool = GpuResource(num_devices=2, lock_folder=str(tmp_path))
    with pool.lease() as first, pool.lease() as second:
        assert (first, second) == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("mask", "names"),
    [(None, ["0", "1", "2", "3"]), ("2,3", ["2", "3"]), ("GPU-a1, ", ["GPU-a1"]), ("-1", [])],
)
def test_the_devices_are_those_that_the_deployment_shows(monkeypatch, tmp_path, mask, names):
    class Dev(type(tmp_path)):
        def glob(self, pattern):
            return [self / f"nvidia{index}" for index in range(4)]

    monkeypatch.setattr(gpu, "Path", Dev)
    monkeypatch.setattr(gpu, "_DEPLOYED_MASK", mask)
    assert gpu.list_devices() == names
    assert gpu.count_devices() == len(names)
