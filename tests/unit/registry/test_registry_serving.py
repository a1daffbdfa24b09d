"""The AgeTransformer as others use it: loaded and served where only its requirements are."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from serving_environment import only_with

from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND, Renderer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import resize_rgb
from agetf_pipeline.registry import packaging, tracking
from agetf_pipeline.registry.requests import Refusal, picture_bytes

SETTINGS = ModelSettings(32, 2, (8, 16), (1, 1), 1, 2, 16)
TEN_AGES = [1.0, 5.0, 12.0, 18.0, 25.0, 33.0, 45.5, 60.0, 75.0, 90.0]
URI = "models:/age-transformer@champion"
START_S = 300


def png(seed: int, width: int = 48, height: int = 48) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return png_of(pixels)


def png_of(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A registry with one champion, random weights."""
    import torch

    torch.manual_seed(0)
    made = Workspace(tmp_path_factory.mktemp("served"))
    weights = made.models / "weights.safetensors"
    save_weights(weights, AgeTransformer(SETTINGS), {"kind": KIND, "model": SETTINGS.to_card()})
    with tracking.connected(tracking.tracking_uri_of(made)) as client:
        run = client.create_run(tracking.experiment_id(client, "served", made)).info.run_id
        uri = packaging.log_model(run, weights, SETTINGS.anchors_years, SETTINGS.size_px)
        client.create_registered_model("age-transformer")
        version = client.create_model_version("age-transformer", uri, run_id=run)
        client.set_registered_model_alias("age-transformer", "champion", version.version)
    return made


@pytest.fixture(scope="module")
def renderer(workspace) -> Renderer:
    return Renderer.load(workspace.models / "weights.safetensors")


@pytest.fixture(scope="module")
def model(workspace):
    import mlflow

    with tracking.connected(tracking.tracking_uri_of(workspace)):
        return mlflow.pyfunc.load_model(URI)


@pytest.fixture(scope="module")
def environment(workspace, tmp_path_factory) -> dict[str, str]:
    return only_with(
        packaging.requirements(),
        tmp_path_factory.mktemp("gate"),
        tracking.tracking_uri_of(workspace),
    )


def expected(renderer: Renderer, data: bytes, ages: list[float]) -> np.ndarray:
    return renderer.render(resize_rgb(pixels_of(data), SETTINGS.size_px)[None], ages)[0]


# In this process


def test_ten_ages_are_the_default_and_rows_are_in_order(model, renderer):
    frame = pd.DataFrame({"image": [png(0), png(1)]})
    rows = model.predict(frame)
    anchors = list(map(float, SETTINGS.anchors_years))
    assert len(anchors) == 10
    assert rows["image_index"].tolist() == [0] * 10 + [1] * 10
    assert rows["age_years"].tolist() == anchors * 2
    found = np.stack([pixels_of(data) for data in rows["image"][10:]])
    np.testing.assert_array_equal(found, expected(renderer, frame["image"][1], anchors))


def test_of_a_picture_that_is_not_square_the_middle_is_taken(model, renderer):
    pixels = pixels_of(png(2, 80, 48))
    rows = model.predict(pd.DataFrame({"image": [png_of(pixels)]}), params={"ages": [30.0]})
    middle = png_of(np.ascontiguousarray(pixels[:, 16:64]))
    found = pixels_of(rows["image"][0])
    np.testing.assert_array_equal(found, expected(renderer, middle, [30.0])[0])


@pytest.mark.parametrize(
    ("images", "params", "words"),
    [
        ([png(0), b"hello"], {}, "in image 1 .*5 bytes: A text file"),
        ([b""], {}, "The file has no bytes"),
        ([png(0)[:300]], {}, "ends before the picture"),
        ([png(0)], {"ages": [200.0]}, r"from 0 to 100 years; found \[200.0\]"),
        ([png(0)], {"ages": [1.0] * 102}, "at most 101 ages; found 102"),
        ([b"x"] * 1000, {"ages": [1.0] * 11}, "at most 10000 renderings; found 1000 pictures"),
        ([png(0)], {"face": "prettiest"}, "only, largest or a number from 1"),
        ([png(0, 200, 200)], {"aligned": False}, "Expected a face in .*found none"),
        ([png(0, 40, 400)], {}, "the longer side may be"),
    ],
)
def test_requests_that_cannot_be_answered_say_why(model, images, params, words):
    with pytest.raises(Refusal, match=words) as refused:
        model.predict(pd.DataFrame({"image": images}), params=params)
    assert refused.value.get_http_status_code() == 400


def test_a_request_of_too_many_bytes_is_refused_before_anything_is_decoded(model, monkeypatch):
    from agetf_pipeline.registry import requests

    monkeypatch.setattr(requests, "MAX_REQUEST_BYTES", 1000)
    with pytest.raises(Refusal, match="at most 1000 bytes in all"):
        model.predict(pd.DataFrame({"image": [b"x" * 600, b"y" * 600]}))


def test_a_huge_picture_is_refused_by_its_header(model, monkeypatch):
    from agetf_pipeline.data import probe

    stream = io.BytesIO()
    Image.new("L", (8000, 8000)).save(stream, format="PNG")
    monkeypatch.setattr(probe, "_decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(Refusal, match=r"8000 x 8000 px, over the limit of 40000000.*not decoded"):
        model.predict(pd.DataFrame({"image": [stream.getvalue()]}))


def test_a_face_is_found_where_the_picture_is_no_aligned_face(model, renderer, monkeypatch):
    from agetf_pipeline.data import photos
    from agetf_pipeline.data.faces import FoundFace, crop_face

    class Detector:
        def __init__(self, faces):
            self.faces = faces

        def find(self, rgb):
            return self.faces

    large, small = FoundFace(60, 40, 100, None), FoundFace(200, 60, 80, None)
    photo = png(3, 320, 240)
    frame, asked = pd.DataFrame({"image": [photo]}), {"aligned": False, "ages": [30.0]}
    monkeypatch.setattr(photos, "default_detector", lambda: Detector([small, large]))
    with pytest.raises(Refusal, match=r"Image 0: Expected one face .*found 2"):
        model.predict(frame, params=asked)
    crops = {
        choice: png_of(crop_face(pixels_of(photo), face, 512))
        for choice, face in (("largest", large), ("1", large), ("2", small))
    }
    for choice, crop in crops.items():
        rows = model.predict(frame, params={**asked, "face": choice})
        found = pixels_of(rows["image"][0])
        np.testing.assert_array_equal(found, expected(renderer, crop, [30.0])[0])


def test_a_refusal_keeps_its_words():
    refusal = Refusal("Expected a picture.")
    refusal.message = "Failed to predict data 'all of the pictures'"
    assert refusal.message == "Expected a picture."
    assert json.loads(refusal.serialize_as_json())["message"] == "Expected a picture."


def test_pictures_come_as_bytes_or_as_base64():
    data = png(0)
    encoded = base64.b64encode(data)
    for given in (data, bytearray(data), encoded, encoded.decode(), np.bytes_(encoded)):
        assert picture_bytes(given) == data
    assert picture_bytes("é") == b"?"
    assert picture_bytes(None) == picture_bytes(3) == b""


def test_requirements_can_be_installed(monkeypatch):
    monkeypatch.setattr(packaging.metadata, "version", lambda name: "2.11.0+cpu")
    listed = packaging.requirements(["polars"])
    assert "torch==2.11.0" in listed
    assert "polars==2.11.0" in listed
    assert len(listed) == len(set(listed))


# In processes that have the model's requirements alone

_LOAD = f"""
import sys, hashlib, importlib.util, io
import mlflow, numpy as np, pandas as pd
from importlib import metadata
from PIL import Image
assert importlib.util.find_spec("dagster") is None
assert importlib.util.find_spec("agetf_pipeline") is None
model = mlflow.pyfunc.load_model({URI!r})
data = open(sys.argv[1], "rb").read()
rows = model.predict(pd.DataFrame({{"image": [data]}}), params={{"ages": {TEN_AGES}}})
images = [np.asarray(Image.open(io.BytesIO(image))) for image in rows["image"]]
np.save(sys.argv[2], np.stack(images))
model.predict(pd.DataFrame({{"image": [data]}}), params={{"face": "1"}})
try:
    model.predict(pd.DataFrame({{"image": [data]}}), params={{"aligned": False}})
except mlflow.exceptions.MlflowException as error:
    assert "Expected a face" in error.message, error
import agetf_pipeline
print(agetf_pipeline.__file__)
owners = metadata.packages_distributions()
tops = {{name.partition(".")[0] for name in sys.modules}}
print(",".join(sorted({{owner.lower() for top in tops for owner in owners.get(top, [])}})))
"""


@pytest.mark.slow
def test_loads_without_dagster_and_without_the_repository(
    environment, workspace, renderer, tmp_path
):
    (tmp_path / "face.png").write_bytes(png(0))
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, "face.png", "out.npy"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    package, imported = done.stdout.strip().splitlines()
    assert Path(package).is_relative_to(workspace.root / "mlruns")
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(found, expected(renderer, png(0), TEN_AGES))
    # Complete: the process had no other distribution. Minimal: it imported each that is listed.
    listed = {line.partition("==")[0] for line in packaging.requirements()}
    assert listed <= set(imported.split(","))


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory) -> Iterator[str]:
    """Address of `mlflow models serve`, started as a person does; ended with its children."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "-m", URI, "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, log)
            yield address
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no answer after {START_S} s: {log.read_text()[-3000:]}")


def ask(address: str, body: dict) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.slow
def test_the_server_answers_one_face_with_ten_ages(server, renderer):
    body = {"dataframe_split": {"columns": ["image"], "data": [[encoded(png(0))]]}}
    status, answer = ask(server, {**body, "params": {"ages": TEN_AGES}})
    assert status == 200
    rows = answer["predictions"]
    assert [(row["image_index"], row["age_years"]) for row in rows] == [(0, a) for a in TEN_AGES]
    found = np.stack([pixels_of(base64.b64decode(row["image"])) for row in rows])
    np.testing.assert_array_equal(found, expected(renderer, png(0), TEN_AGES))


@pytest.mark.slow
def test_the_server_answers_ten_images_in_every_form(server, renderer):
    images = [png(seed) for seed in range(10)]
    texts = [encoded(data) for data in images]
    forms = {
        "dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]},
        "dataframe_records": [{"image": text} for text in texts],
        "inputs": {"image": texts},
        "instances": [{"image": text} for text in texts],
    }
    wanted = [expected(renderer, data, [60.0])[0] for data in images]
    for name, form in forms.items():
        status, answer = ask(server, {name: form, "params": {"ages": [60]}})
        assert status == 200, (name, answer)
        rows = answer["predictions"]
        assert [row["image_index"] for row in rows] == list(range(10))
        found = [pixels_of(base64.b64decode(row["image"])) for row in rows]
        np.testing.assert_array_equal(np.stack(found), np.stack(wanted), err_msg=name)


@pytest.mark.slow
def test_the_server_refuses_in_plain_words(server):
    stream = io.BytesIO()
    Image.new("L", (9000, 9000)).save(stream, format="PNG")
    for image, params, words in (
        (b"hello", {}, "A text file, not a picture"),
        (png(0), {"ages": [200]}, "from 0 to 100 years"),
        (stream.getvalue(), {}, "it was not decoded"),
        (png(0, 200, 200), {"aligned": False}, "Expected a face"),
    ):
        status, answer = ask(server, {"inputs": {"image": [encoded(image)]}, "params": params})
        assert status == 400
        assert words in answer["message"]
        assert answer["message"].startswith(("Expected", "Image 0: Expected"))
        assert "stack_trace" not in answer
        assert encoded(image)[:100] not in json.dumps(answer)
    # And goes on serving.
    assert ask(server, {"inputs": {"image": [encoded(png(0))]}})[0] == 200
