"""What every server listens on by default: read off the files and command lines that start them."""

import ast
import re
import socket
from pathlib import Path

import pytest
import yaml
from listening import addresses_of

REPOSITORY = Path(__file__).resolve().parents[2]
LOOPBACK = {"127.0.0.1", "::1"}


def test_compose_publishes_ports_on_loopback_alone():
    services = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert {name for name, ports in published.items() if ports} == {"mlflow", "webserver"}
    for port in (port for ports in published.values() for port in ports):
        assert str(port).startswith("${AGETF_BIND:-127.0.0.1}:"), port
    assert all(service.get("network_mode") is None for service in services.values())
    example = (REPOSITORY / "docker" / ".env.example").read_text()
    assert not re.search(r"^AGETF_BIND=", example, re.MULTILINE)


def test_kubernetes_opens_nothing_to_the_outside():
    folder = REPOSITORY / "docker" / "k8s"
    for path in (folder / "manifests.yaml", folder / "values.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            for key, value in walk(document):
                assert key not in {"hostNetwork", "hostPort", "externalIPs"} or not value, path
                assert value not in ("LoadBalancer", "NodePort"), path
                assert (key, value) != ("kind", "Ingress"), path


def walk(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item if not isinstance(item, dict | list) else None
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


@pytest.mark.parametrize("folder", ["jobs", "agetf_pipeline", "assets", "resources", "docker"])
def test_no_server_of_ours_names_another_address_by_itself(folder):
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            assert not (is_text and node.value == "0.0.0.0"), f"{path}:{node.lineno}"


def test_the_documents_start_servers_on_loopback():
    """Command lines that people copy."""
    for path in [*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"^\s*(\.venv/bin/)?(mlflow (server|models serve)|tensorboard) ", line):
                named = re.search(r"--host[ =](\S+)", line)
                assert named is None or named.group(1) in LOOPBACK, f"{path.name}: {line}"
                assert "bind_all" not in line, f"{path.name}: {line}"


def test_the_kernels_tables_are_read_rightly():
    """A socket on every address, opened for a moment, is seen as such."""
    import os

    with socket.socket() as local, socket.socket() as everywhere:
        local.bind(("127.0.0.1", 0))
        local.listen()
        before = addresses_of(os.getpid())
        assert "127.0.0.1" in before
        assert "0.0.0.0" not in before
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        assert "0.0.0.0" in addresses_of(os.getpid())
