"""The compose files: the specification's schema, and what this project promises of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
FILES = ["compose.yaml", "compose.gpu.yaml"]
PASSWORDS = ["POSTGRES_PASSWORD", "DAGSTER_PG_PASSWORD", "MLFLOW_PG_PASSWORD"]


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_fits_the_compose_specification(name):
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [str(tool), "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_password_has_a_value_or_a_default(compose):
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    used = re.findall(r"\$\{(\w*PASSWORD)(.*?)\}", text)
    assert {name for name, _ in used} == set(PASSWORDS)
    assert all(rest.startswith(":?") for _, rest in used)
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    for name in PASSWORDS:
        assert re.search(rf"(?m)^{name}=$", example)
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${"), name


def test_every_option_is_in_the_example():
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    text = "".join((DOCKER / name).read_text(encoding="utf-8") for name in FILES)
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", text)):
        assert re.search(rf"(?m)^(# )?{name}=", example), name


def test_ports_are_on_loopback_and_the_database_has_none(compose):
    services = compose["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("${AGETF_BIND:-127.0.0.1}:") for port in ports)
    assert "ports" not in services["postgres"]
    assert services["postgres"]["networks"] == ["database"]
    assert compose["networks"]["database"] == {"internal": True}


def test_services_restart_are_watched_and_wait_for_each_other(compose):
    services = compose["services"]
    once = services["migrate"]
    assert once["restart"] == "no"
    for name, service in services.items():
        if service is once:
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        for needed, wanted in service.get("depends_on", {}).items():
            ended = needed == "migrate"
            expected = "service_completed_successfully" if ended else "service_healthy"
            assert wanted["condition"] == expected, (name, needed)


def test_own_images_cannot_gain_privileges(compose):
    for name, service in compose["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        if "build" in service:
            assert service["cap_drop"] == ["ALL"], name
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert "docker.sock" not in text


def test_every_volume_is_named_and_kept(compose):
    mounted = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "$"))
    }
    assert mounted | {"workspace"} == set(compose["volumes"])


def test_health_checks_are_those_of_the_images(compose):
    dockerfiles = "".join(
        (DOCKER / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Dockerfile.dagster")
    )
    for name in ("code", "webserver", "daemon", "mlflow"):
        words = compose["services"][name]["healthcheck"]["test"][1:]
        spelled = "[" + ", ".join(f'"{word}"' for word in words) + "]"
        assert f"CMD {spelled}" in dockerfiles, name


def test_build_targets_exist(compose):
    over = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text(encoding="utf-8"))
    for service in [*compose["services"].values(), *over["services"].values()]:
        build = service.get("build")
        if build:
            text = (REPOSITORY / build["dockerfile"]).read_text(encoding="utf-8")
            assert f" AS {build['target']}\n" in text
