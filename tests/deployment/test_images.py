"""The Dockerfiles: linted by hadolint, and what they copy and install is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from services import image_command

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = ["Dockerfile", "Dockerfile.dagster"]
TARGETS = [
    ("Dockerfile", "code"),
    ("Dockerfile.dagster", "webserver"),
    ("Dockerfile.dagster", "daemon"),
    ("Dockerfile.dagster", "mlflow"),
]
_PIN = re.compile(r"(?m)^([a-z0-9._-]+)==(\S+)")


def text_of(dockerfile: str) -> str:
    return (REPOSITORY / "docker" / dockerfile).read_text(encoding="utf-8")


def stage_of(dockerfile: str, target: str) -> str:
    return re.split(r"(?m)^FROM ", text_of(dockerfile).split(f" AS {target}\n", 1)[1])[0]


def pins(path: str) -> dict[str, str]:
    return dict(_PIN.findall((REPOSITORY / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile):
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--no-color", str(REPOSITORY / "docker" / dockerfile)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_is_there_and_not_left_out(dockerfile):
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    sources = [
        source
        for words in re.findall(r"(?m)^COPY (?!--from)(.*)$", text_of(dockerfile))
        for source in words.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert source in sent or Path(source).parts[0] in sent, source


def test_secrets_and_history_stay_out_of_the_context():
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert "!.git" not in patterns
    assert patterns.index("docker/.env") > patterns.index("!docker")


@pytest.mark.parametrize(("dockerfile", "target"), TARGETS)
def test_an_image_has_a_health_check_a_command_and_an_unprivileged_user(dockerfile, target):
    stage = stage_of(dockerfile, target)
    assert "HEALTHCHECK" in stage
    command = image_command(dockerfile, target, {"3000": "3100"})
    assert Path(command[0]).is_file() or command[0] == "sh"
    parent = stage if "USER" in stage else stage_of(dockerfile, "dagster")
    assert re.findall(r"(?m)^USER (\S+)$", parent)[-1] == "10001:10001"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_base_images_are_pinned_and_no_secret_is_built_in(dockerfile):
    text = text_of(dockerfile)
    assert re.search(r"(?m)^ARG PYTHON_IMAGE=python:3\.1[12]\.\d+-slim-\w+$", text)
    names = re.findall(r"(?mi)^(?:ARG|ENV) .*?(password|secret|token|key)", text)
    assert not names


def test_the_uv_of_the_images_is_that_of_the_makefile():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (version,) = re.findall(r"(?m)^UV_VERSION := (\S+)$", makefile)
    for dockerfile in DOCKERFILES:
        assert re.findall(r"(?m)^ARG UV_VERSION=(\S+)$", text_of(dockerfile)) == [version]


@pytest.mark.parametrize("name", ["dagster-server", "mlflow-server"])
def test_the_small_images_hold_the_same_versions_without_pytorch(name):
    path = f"docker/requirements-{name}.lock"
    small, whole = pins(path), pins("requirements.lock")
    assert small.items() <= whole.items(), "run `make lock`"
    assert "psycopg2-binary" in small
    assert "torch" not in small
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") >= len(small)
