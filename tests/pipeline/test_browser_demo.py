"""The app's first tab as a person uses it: the real server, a real browser, real files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Page, open_browser
from demo_server import serve_demo
from listening import addresses_of, find_process
from PIL import Image

from agetf_pipeline.synthetic.faces import draw_face, draw_identity

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo_address(graph_run, tmp_path_factory) -> Iterator[str]:
    with serve_demo(graph_run, tmp_path_factory.mktemp("demo")) as address:
        yield address


@pytest.fixture(scope="module")
def page(demo_address, tmp_path_factory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1400, 1200)
        page.open(demo_address)
        page.wait_for("The ten ages appear here")
        yield page


def give(page: Page, path: Path) -> None:
    """Hand a file to the tab's field, as a file dialog does."""
    root = page.send("DOM.getDocument", depth=0)["root"]["nodeId"]
    selector = "#ageing-upload input[type=file]"
    node = page.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def save(path: Path, *faces: np.ndarray) -> Path:
    Image.fromarray(np.concatenate(faces, axis=1)).save(path)
    return path


def test_ten_renderings_with_readings_and_a_slider(demo_address, page, tmp_path):
    give(page, save(tmp_path / "one.png", draw_face(draw_identity(5), 30, 256)))
    page.wait_for("95 years", "looks", "drawn faces alone", "40 years")
    texts = page.evaluate("[...document.querySelectorAll('#ageing-row img')].map((e) => e.alt)")
    assert len(texts) == 10
    assert all("rendered at" in text for text in texts)
    before = page.evaluate("document.querySelectorAll('#ageing-pair img')[1].src")
    page.evaluate(
        """(() => { const e = document.querySelector('#ageing-age input[type=range]');
        e.value = 80; e.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    page.wait_for("80 years")
    assert page.evaluate("document.querySelectorAll('#ageing-pair img')[1].src") != before


def test_nothing_but_this_machine_is_asked(demo_address, page):
    asked = page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)")
    assert asked
    assert all(name.startswith((demo_address, "data:")) for name in asked)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.images].filter((e) => !e.alt).length") == 0
    process = find_process("demo", demo_address.rpartition(":")[2])
    assert addresses_of(process) <= {"127.0.0.1"}


def test_several_faces_are_told_and_one_can_be_chosen(demo_address, page, tmp_path):
    page.open(demo_address)
    page.wait_for("The ten ages appear here")
    faces = [draw_face(draw_identity(seed), age, 256) for seed, age in ((5, 30), (2, 50))]
    give(page, save(tmp_path / "two.png", *faces))
    page.wait_for("2 faces were found", "Choose which one")
