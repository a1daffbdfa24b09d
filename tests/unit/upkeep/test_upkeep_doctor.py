"""`agetf doctor`: each fault made for real, and what is said of it."""

import argparse
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from small_disk import NEEDS_MOUNT, fill, read_only, small_disk
from small_registry import make_registry
from tiny_shards import REPOSITORY, write_shard

from agetf_pipeline.cli import main
from agetf_pipeline.commands.doctor import lines_of_section, run, verdict_of
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.upkeep import (
    doctor_data,
    doctor_devices,
    doctor_installation,
    doctor_machine,
    doctor_services,
    doctor_weights,
    doctor_workspace,
)
from agetf_pipeline.upkeep.doctor import Patient, admit, examine, findings_of, is_well

MB = 1 << 20


def patient(root: Path, **values) -> Patient:
    config = PipelineConfig.model_validate({"workspace": {"root": root}, **values})
    return Patient(root / "own.yaml", config, Workspace(root), quick=True)


def found(items) -> dict[str, tuple[str, str]]:
    """Return check to what was found and the remedy."""
    findings = [item.finding for item in items if item.finding is not None]
    for finding in findings:
        assert finding.remedy.strip()
    return {finding.check: (finding.found, finding.remedy) for finding in findings}


def own_config(folder: Path, more: str = "") -> Path:
    path = folder / "configs" / "own.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"workspace: {{root: {folder / 'workspace'}}}\n{more}")
    return path


def test_a_workspace_that_is_well(tmp_path, capsys):
    write_shard(Workspace(tmp_path / "workspace"), "one", seed=1)
    home = tmp_path / "home"
    home.mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    arguments = ["doctor", "--quick", "--dagster-home", str(home), "--config"]
    config = own_config(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    code = main([*arguments, str(config), "--json"])
    told = json.loads(capsys.readouterr().out)
    errors = [each for each in told["findings"] if each["severity"] == "error"]
    assert code == 0, errors
    assert told["well"]
    assert set(told["areas"]) == {
        "installation", "machine", "devices", "workspace", "data", "weights", "services",
    }  # fmt: skip
    assert main([*arguments, str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "workspace" in lines
    assert any(line.startswith("  ok       CAF shards") for line in lines)
    assert lines[-1].startswith("fit to work: ")
    assert max(map(len, lines)) <= 160
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before  # nothing is left behind


def test_a_config_that_cannot_be_read_ends_no_other_check(tmp_path, capsys):
    config = own_config(tmp_path, "colour: red\n")
    assert main(["doctor", "--quick", "--config", str(config)]) == 1
    said = capsys.readouterr().out
    assert "ERROR" in said
    assert "colour" in said
    assert "Python" in said
    assert said.splitlines()[-1].startswith("not fit to work")


def test_a_check_that_breaks_is_found_and_ends_nothing(tmp_path):
    def breaking_check(_):
        raise RuntimeError("password=s3cr3t")
        yield

    sections = examine(
        patient(tmp_path), [("machine", [breaking_check, doctor_machine.files_check])]
    )
    (finding,) = findings_of(sections)
    assert finding.check == "machine/breaking"
    assert "RuntimeError" in finding.found
    assert "s3cr3t" not in finding.found
    assert is_well(sections)
    assert len(sections[0].items) == 2


def test_packages_of_another_version_and_missing_ones(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"numpy=={version('numpy')} ; sys_platform == 'linux' \\\n    --hash=sha256:00\n"
        "polars==0.0.1\nno-such-package==1.0\nonly-elsewhere==1.0 ; sys_platform == 'win32'\n"
    )
    told = [*doctor_installation.packages_check(Patient(tmp_path, lock=lock))]
    findings = [item.finding for item in told if item.finding]
    assert [each.severity for each in findings] == ["error", "warning"]
    assert findings[0].found == "1 missing: no-such-package"
    assert f"polars {version('polars')} instead of 0.0.1" in findings[1].found
    assert "make setup" in findings[1].remedy
    lock.write_text(f"numpy=={version('numpy')}\n")
    (item,) = doctor_installation.packages_check(Patient(tmp_path, lock=lock))
    assert item.finding is None


def test_an_old_python_is_named(monkeypatch):
    """Stands for another interpreter: the tests run under one alone."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    told = found(doctor_installation.python_check(Patient(Path())))
    assert told["installation/python"][0] == "3.10.4"


def test_threads_beyond_the_cores_and_the_limits_of_a_container(tmp_path, monkeypatch):
    """The files are a container's, of both versions of cgroups."""
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{512 * MB}\n")
    (tmp_path / "memory.current").write_text(f"{500 * MB}\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert doctor_machine.cpu_quota(tmp_path) == 1.5
    told = found(doctor_machine.cores_check(Patient(Path()), tmp_path))
    assert told["machine/threads"][0] == "64"
    assert "OMP_NUM_THREADS=" in told["machine/threads"][1]
    told = found(doctor_machine.memory_check(Patient(Path()), tmp_path))
    assert "of 537 MB in here" in told["machine/memory"][0]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor_machine.cpu_quota(tmp_path) is None
    assert doctor_machine.memory_limit(tmp_path) is None


def test_a_low_limit_of_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        told = found(doctor_machine.files_check(Patient(Path())))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told["machine/open_files"][0] == "512"
    assert "ulimit -n" in told["machine/open_files"][1]


def test_a_gpu_that_is_wanted_and_absent_and_one_of_a_driver_too_old(tmp_path, monkeypatch):
    """Files stand for the device and its driver; no GPU is needed."""
    wants = patient(tmp_path, runtime={"device": "cuda"})
    empty = tmp_path / "dev"
    empty.mkdir()
    told = found(doctor_devices.gpus_check(wants, empty))
    assert "nvidia-smi" in told["devices/absent"][1]
    (empty / "nvidia0").touch()
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  418.87.00  Thu\n")
    (item,) = doctor_devices.gpus_check(wants, empty, driver)
    assert "driver 418.87.00" in item.value
    monkeypatch.setattr("agetf_pipeline.upkeep.doctor_devices.torch_build", lambda: ("2.0", ""))
    told = found(doctor_devices.gpus_check(wants, empty, driver))
    assert "for CPUs alone" in told["devices/build"][0]


def test_bf16_where_it_is_emulated(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    wants = patient(tmp_path, runtime={"device": "cpu", "precision": "bf16"})
    cpuinfo.write_text("flags\t\t: fpu sse2 avx2\n")
    told = found(doctor_devices.bf16_check(wants, cpuinfo))
    assert "runtime.precision=fp32" in told["devices/bf16"][1]
    cpuinfo.write_text("flags\t\t: fpu avx2 avx512_bf16\n")
    assert found(doctor_devices.bf16_check(wants, cpuinfo)) == {}


@NEEDS_MOUNT
def test_a_full_disk_and_a_small_one(tmp_path):
    with small_disk(tmp_path / "disk", 8 * MB) as disk:
        told = found(doctor_workspace.disk_check(patient(disk / "workspace")))
        assert "Make room" in told["workspace/disk"][1]
        told = found(doctor_workspace.temporary_check(patient(disk), disk, disk))
        assert "TMPDIR" in told["workspace/tmp"][1]
        assert "--shm-size" in told["workspace/shm"][1]
        fill(disk)
        told = found(doctor_workspace.folders_check(patient(disk)))
        assert "No space left on device" in told["workspace/writable"][0]


@NEEDS_MOUNT
def test_a_read_only_workspace(tmp_path):
    (tmp_path / "workspace").mkdir()
    with read_only(tmp_path / "workspace"):
        told = found(doctor_workspace.folders_check(patient(tmp_path / "workspace")))
        assert "Read-only file system" in told["workspace/writable"][0]
        assert "Mount it writable" in told["workspace/writable"][1]
        assert list(doctor_workspace.file_system_check(patient(tmp_path / "workspace"))) == []


def test_a_lock_that_is_held_and_what_a_killed_writer_left(tmp_path):
    its = patient(tmp_path)
    (tmp_path / "data" / "tables").mkdir(parents=True)
    (tmp_path / "data" / "tables" / ".tmp-x.parquet").touch()
    told = found(doctor_workspace.leftovers_check(its))
    assert told["workspace/leftovers"][0].startswith("1, of writes")
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys; from pathlib import Path\n"
            "from agetf_pipeline.core.locks import exclusive_lock\n"
            "with exclusive_lock(Path(sys.argv[1]), 'x'): print('held', flush=True); input()",
            str(its.workspace.state / "locks" / "stages" / "predict.lock"),
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    (item,) = doctor_workspace.leftovers_check(its)
    assert item.finding is None
    assert "predict.lock" in item.value
    holder.communicate("\n", timeout=30)
    with exclusive_lock(its.workspace.state / "locks" / "stages" / "predict.lock", "x", wait=False):
        pass


def test_a_file_system_without_locks_or_with_a_wrong_clock(tmp_path, monkeypatch):
    """No such file system is at hand: the calls answer as one would."""

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(doctor_workspace.fcntl, "flock", refuse)
    monkeypatch.setattr(doctor_workspace.time, "time", lambda: 0.0)
    told = found(doctor_workspace.file_system_check(patient(tmp_path)))
    assert told["workspace/locks"][0] == "Operation not supported"
    assert "NTP" in told["workspace/clock"][1]
    assert list(tmp_path.iterdir()) == []


def test_no_photographs_an_incomplete_shard_and_bad_labels(tmp_path):
    its = patient(tmp_path)
    assert "ingest.<corpus>.path" in found(doctor_data.corpora_check(its))["data/corpora"][1]
    folder = write_shard(its.workspace, "one", seed=1, num_images=2)
    write_shard(its.workspace, "two", seed=2)
    (folder / "1.png").unlink()
    (its.workspace.raw_caf / "two" / "manifest.csv").write_bytes(b"\xff\xfe\0broken")
    told = found(doctor_data.shards_check(its))
    assert "1 missing (1.png)" in told["data/shard_incomplete"][0]
    assert "manifest.csv" in told["data/shard_broken"][1]
    assert not (tmp_path / "data" / ".state").exists()  # nothing was written
    its.workspace.raw_ffhq.mkdir(parents=True)
    (its.workspace.raw_ffhq / "ffhq_aging_labels.csv").write_text("a,b\n1,2\n")
    assert "check-labels" in found(doctor_data.labels_check(its))["data/labels"][1]


def test_weights_that_are_missing_foreign_or_damaged(tmp_path):
    missing = tmp_path / "RealESRGAN_x4plus.pth"
    values = {"train_enhancers": {"esrgan": {"weights": missing}}}
    told = found(doctor_weights.configured_check(patient(tmp_path, **values)))
    assert told["weights/missing"][0] == "nothing there"
    assert "agetf models import" in told["weights/missing"][1]
    foreign = tmp_path / "mine.pth"
    foreign.write_bytes(b"anything")
    values = {"train_enhancers": {"esrgan": {"weights": foreign}}}
    told = found(doctor_weights.configured_check(patient(tmp_path, **values)))
    assert "agetf models verify" in told["weights/unverified"][1]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    told = found(doctor_weights.trained_check(patient(tmp_path)))
    assert "run the stage" in told["weights/damaged"][1]


def test_a_damaged_registry_and_a_server_that_does_not_answer(tmp_path):
    workspace = make_registry(tmp_path / "workspace", 1)
    assert found(doctor_services.registry_check(patient(workspace.root))) == {}
    database = workspace.root / "mlflow.db"
    database.write_bytes(database.read_bytes()[:5000])
    told = found(doctor_services.registry_check(patient(workspace.root)))
    assert "services/registry" in told
    with socket.socket() as taken:  # bound, not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        its = patient(workspace.root, register_model={"tracking_uri": uri})
        told = found(doctor_services.registry_check(its))
    assert "ConnectionRefusedError" in told["services/registry"][0]
    assert "MLFLOW_TRACKING_USERNAME" in told["services/registry"][1]


def test_a_damaged_dagster_instance_its_database_server_and_its_settings(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "history").mkdir(parents=True)
    (home / "history" / "runs.db").write_bytes(b"no database" * 1000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PG_PORT", str(taken.getsockname()[1]))
        (home / "dagster.yaml").write_text(
            "storage: {postgres: {postgres_db: {hostname: 127.0.0.1, port: {env: PG_PORT}}}}\n"
        )
        its = Patient(tmp_path, dagster_home=home)
        told = found(doctor_services.dagster_check(its))
    assert "stay, Dagster's history of runs is lost" in told["services/dagster_sqlite"][1]
    assert "refused" in told["services/postgres"][0]
    (home / "dagster.yaml").write_text("a: [1")
    assert "Delete it" in found(doctor_services.dagster_check(its))["services/dagster_yaml"][1]
    absent = Patient(tmp_path, dagster_home=tmp_path / "absent")
    assert "DAGSTER_HOME" in found(doctor_services.dagster_check(absent))["services/dagster"][1]


def test_a_port_that_is_taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        told = found(doctor_services.port_check(Patient(Path(), port=port)))
        assert f"make ui PORT={port + 1}" in told["services/port"][1]


def test_what_is_wrong_stands_below_its_name_with_the_remedy(tmp_path):
    sections = examine(admit(tmp_path / "absent.yaml", quick=True), [
        ("data", doctor_data.CHECKS), ("installation", [doctor_installation.python_check]),
    ])  # fmt: skip
    assert sections[0].items == ()  # nothing to say without a configuration
    assert lines_of_section(sections[1])[0] == "installation"
    assert verdict_of(sections) == "fit to work: 1 things are well"


def test_a_run_that_stands_in_the_journal_alone_is_told(tmp_path):
    database = tmp_path / "history" / "runs.db"
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE runs (run_id TEXT, status TEXT)")
        writer.execute("INSERT INTO runs VALUES ('a', 'STARTED')")
        writer.commit()
        before = sorted(path.name for path in database.parent.iterdir())
        assert Path(f"{database}-wal").stat().st_size
        told = found(doctor_services.dagster_check(Patient(tmp_path, dagster_home=tmp_path)))
        assert sorted(path.name for path in database.parent.iterdir()) == before
    assert told["services/runs"][0].startswith("1 that are queued")


@pytest.mark.parametrize(("status", "well"), [(200, True), (401, True), (403, True), (404, False)])
def test_a_server_that_knows_nothing_of_its_health_is_no_registry(tmp_path, status, well):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        uri = f"http://127.0.0.1:{server.server_port}"
        its = patient(tmp_path, register_model={"tracking_uri": uri})
        told = found(doctor_services.registry_check(its))
        thread.join()
    assert (told == {}) is well
    if not well:
        assert told["services/registry"][0] == "HTTP 404 for /health"


def test_a_registry_of_files_is_no_server(tmp_path):
    uri = f"file://{tmp_path / 'mlruns'}"
    (item,) = doctor_services.registry_check(
        patient(tmp_path, register_model={"tracking_uri": uri})
    )
    assert item.finding is None
    (tmp_path / "mlruns").mkdir()
    (item,) = doctor_services.registry_check(
        patient(tmp_path, register_model={"tracking_uri": uri})
    )
    assert item.value == f"{tmp_path / 'mlruns'}: a folder of files"


def test_many_incomplete_shards_are_a_few_lines(tmp_path):
    its = patient(tmp_path)
    for number in range(8):
        write_shard(its.workspace, f"s{number}", seed=1, num_images=1)
        (its.workspace.raw_caf / f"s{number}" / "0.png").unlink()
    items = [item for item in doctor_data.shards_check(its) if item.finding]
    assert len(items) == 4
    assert items[-1].value == "5 more that are incomplete"


def test_a_wrong_config_is_said_once_and_each_area_as_it_is_done(tmp_path):
    told = []
    options = argparse.Namespace(
        config=tmp_path / "absent.yaml", overrides=[], dagster_home=None, quick=True, json=False
    )
    assert run(options, told.append) == 1
    assert told[0].startswith("installation\n")
    assert told[1].startswith("\nmachine\n")
    words = " ".join(told[0].split())
    assert "expected a config file at" in words
    assert "found nothing" in words
    assert "found Expected" not in words


@pytest.mark.parametrize("word", ["dagster", "torch", "mlflow"])
def test_the_quick_doctor_loads_nothing_heavy(word, tmp_path):
    code = (
        "import sys; from agetf_pipeline.cli import main\n"
        f"main(['doctor', '--quick', '--config', {str(own_config(tmp_path))!r}])\n"
        f"sys.exit(3 if {word!r} in sys.modules else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
