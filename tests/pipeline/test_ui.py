"""The Dagster UI as a person uses it: the real server and daemon, a real browser, real clicks."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PATIENCE_S, Page, open_browser
from listening import addresses_of, find_process
from main_job import REPOSITORY, write_config

pytestmark = pytest.mark.slow

_START_S = 180.0
"""The code location loads, the daemon starts, Chromium starts: on a machine that does other things
besides."""


@pytest.fixture(scope="module")
def server(graph_run, tmp_path_factory) -> Iterator[str]:
    """Serve a copy of the finished run, as `make ui` does; gives the address."""
    folder = tmp_path_factory.mktemp("ui")
    shutil.copytree(graph_run.workspace.root, folder / "workspace")
    shutil.copytree(graph_run.home, folder / "home")
    config = write_config(folder, folder / "workspace")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = (folder / "serve.log").open("w")
    command = [sys.executable, "-m", "jobs.serve", "--home", str(folder / "home")]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "AGETF_CONFIG": str(config)},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for_server(process, address, folder / "serve.log")
        yield address
    finally:
        _end(process)
        log.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1600, 1000)
        yield page


def _wait_for_server(process: subprocess.Popen, address: str, log: Path) -> None:
    ends = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/server_info", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)


def _end(process: subprocess.Popen) -> None:
    """End the server with everything that it started: daemon, code location, runs."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(page: Page, pattern: str) -> re.Match[str]:
    """Wait until what the page says fits a pattern."""
    ends = time.monotonic() + PATIENCE_S
    while True:
        said = page.text
        found = re.search(pattern, said, re.DOTALL)
        if found is not None:
            return found
        assert time.monotonic() < ends, f"{pattern!r} does not fit {page.address}:\n{said[:4000]}"
        time.sleep(0.2)


def drawn_from_left(page: Page, names: list[str]) -> dict[str, float]:
    """Return where the left edge of each of these is drawn in the graph."""
    return page.evaluate(
        f"""Object.fromEntries({json.dumps(names)}.map((name) => {{
          const found = [...document.querySelectorAll('svg foreignObject *')]
            .filter((e) => (e.innerText || '').trim() === name);
          return [name, found.length ? found[0].getBoundingClientRect().x : null];
        }}))"""
    )


def test_it_listens_on_loopback_alone(server):
    """The webserver, the daemon and the code location, by the kernel's table of sockets."""
    process = find_process("jobs.serve", server.rpartition(":")[2])
    assert addresses_of(process) <= {"127.0.0.1", "::1"}


def test_the_graph_reads_from_left_to_right(server, page):
    from assets.running import GROUPS

    page.open(f"{server}/asset-groups")
    page.wait_for("Global asset lineage", *GROUPS)
    ends = time.monotonic() + PATIENCE_S
    while None in (places := drawn_from_left(page, list(GROUPS))).values():
        assert time.monotonic() < ends, places
        time.sleep(0.2)
    # Captions and enhancement do not read one another: they may stand in one column.
    chain = ["corpus", "labels", "enhancement", "training", "evaluation", "registry", "release"]
    assert [places[name] for name in chain] == sorted({places[name] for name in chain})
    assert places["labels"] < places["captions"] < places["training"]


def test_an_asset_says_what_it_is_and_is_materialised_by_a_click(server, page):
    page.open(f"{server}/assets/keep_list")
    said = page.wait_for("Made by the stage", "Cost:", "num_kept", "curriculum_weight")
    for text in ("Which images training may use", "labels", "agetf", "file_filter_report"):
        assert text in said
    page.click("Materialize", "button", exact=False)
    page.wait_for("Launched run")
    page.open(f"{server}/runs")
    # Above the runs that filled the instance stands one of this asset and of its check alone.
    wait_until(page, r"keep_list_expectations on keep_list.*?Success.*?pipeline")


def test_a_check_shows_its_expectations_row_by_row(server, page):
    page.open(f"{server}/assets/moe_labels?view=checks")
    page.click("labels_expectations")
    said = page.wait_for("This is a blocking asset check", "Variance = within + between")
    assert re.search(r"Variance = within \+ between\s+holds\s+96\s+0\s+0\.0%", said)
    assert "stats/quality/data_docs/moe_labels/labels_expectations.html" in said
    page.click("label_drift")
    page.wait_for("This is a non-blocking asset check", "nothing to compare with")


def test_a_backfill_is_launched_and_its_page_opened(server, page):
    page.open(f"{server}/assets/caf_images")
    page.wait_for("Made by the stage")
    page.click("Materialize", "button", exact=False)
    page.wait_for("Launch runs to materialize caf_images", "Partition selection")
    page.click("All")
    page.wait_for("2 partitions")
    page.click("Launch backfill", "button", exact=False)
    backfill = wait_until(page, r"Created backfill (\w+)")[1]
    page.open(f"{server}/runs?view=backfills")
    page.wait_for("2 partitions", backfill)
    page.click(backfill, "a")
    said = page.wait_for("Partitions targeted", "caf_images", "shard-0000", "shard-0001")
    assert page.address.endswith(f"/runs/b/{backfill}")
    assert "Failed" in said
    # Two targeted; the daemon, which looks every half minute, may have got to them or not.
    wait_until(page, r"caf_images\s+\d+% completed\s+2\s+[0-2]\s+[0-2]\s+0")
