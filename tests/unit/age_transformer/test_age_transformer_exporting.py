"""Exported programs: equal pictures, any number of faces and ages, nothing foreign opened."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from agetf_pipeline.age_transformer.exporting import export_program, open_program
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND, Renderer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)
CARD = {"kind": KIND, "model": SMALL.to_card(), "trained_on": "synthetic"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = AgeTransformer(SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def program(model, tmp_path_factory):
    return export_program(model, CARD, tmp_path_factory.mktemp("program") / "model.pt2")


@pytest.fixture(scope="module")
def faces():
    return np.stack([draw_face(draw_identity(seed), 40.0, 32) for seed in range(3)])


def rewritten(path, target, change):
    """Copy an archive, each part passed through `change(name, content)`; None leaves one out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                copy.writestr(name, content)
    return target


def test_a_program_renders_what_the_model_renders(model, program, faces):
    ours, exported = Renderer(model), Renderer.load(program)
    assert exported.card == json.loads(json.dumps(CARD))
    assert exported.settings == SMALL
    for number, ages in ((1, [33.0]), (1, [5, 15, 25, 95]), (3, [80, 0.5]), (2, [7, 7, 100])):
        expected = ours.render(faces[:number], ages, batch_size=2).astype(int)
        difference = np.abs(exported.render(faces[:number], ages, batch_size=2) - expected)
        assert difference.max() <= 1
        assert difference.mean() < 0.01


def test_a_program_runs_in_bf16_too(program, faces):
    exact = Renderer.load(program).render(faces, [5, 50, 95]).astype(int)
    coarse = Renderer.load(program, precision="bf16").render(faces, [5, 50, 95])
    assert 0 < np.abs(coarse - exact).max() <= 8
    assert np.abs(coarse - exact).mean() < 1


def test_a_program_moves_to_another_device(program):
    # The meta device stands for any: what was traced as made on the CPU has to move as well.
    module, _ = open_program(program, torch.device("meta"))
    images = module(torch.empty(2, 3, 32, 32, device="meta"), torch.empty(2, 4, device="meta"))
    assert images.shape == (2, 4, 3, 32, 32)
    assert images.device.type == "meta"


def test_the_same_model_gives_the_same_file_without_paths_of_this_machine(model, program, tmp_path):
    again = export_program(model, CARD, tmp_path / "other_name.pt2")
    assert again.read_bytes() == program.read_bytes()
    assert b"layers.py" not in program.read_bytes()
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(WeightsError, match=r"\.pt2"):
        export_program(model, CARD, tmp_path / "model.onnx")


def test_damaged_and_foreign_files_are_refused(program, tmp_path):
    data = program.read_bytes()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(data[: len(data) // 2])
    flipped = tmp_path / "flipped.pt2"
    middle = data.index(b"positive=True")
    flipped.write_bytes(data[:middle] + b"#" + data[middle + 1 :])
    text = tmp_path / "text.pt2"
    text.write_text("no archive")
    for path in (cut, flipped, text):
        with pytest.raises(WeightsError, match="Copy the file again"):
            Renderer.load(path)
    with pytest.raises(WeightsError, match="found nothing"):
        Renderer.load(tmp_path / "absent.pt2")

    def other_kind(name, content):
        return json.dumps({"kind": "age_regressor"}) if name == "extra/card.json" else content

    foreign = rewritten(program, tmp_path / "foreign.pt2", other_kind)
    with pytest.raises(WeightsError, match="age_regressor"):
        Renderer.load(foreign)
    bare = rewritten(
        program, tmp_path / "bare.pt2", lambda name, part: None if "extra/" in name else part
    )
    with pytest.raises(WeightsError, match="none in it"):
        Renderer.load(bare)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file ran')",))


@pytest.mark.parametrize("where", ["expression", "operator", "guard", "weights", "inputs", "extra"])
def test_a_program_that_brings_code_is_not_opened(program, tmp_path, where):
    pickled = io.BytesIO()
    torch.save(Bomb(), pickled)

    def poison(name, content):
        if name == "models/model.json":
            if where == "expression":
                return content.replace(b"Integer(", b"exec(", 1)
            if where == "operator":
                return content.replace(b"torch.ops.aten.tanh.default", b"torch.hub.load", 1)
            if where == "guard":
                changed = json.loads(content)
                changed["guards_code"] = ["__import__('os')"]
                return json.dumps(changed)
        if name.endswith("weights_config.json") and where == "weights":
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if name.startswith("data/sample_inputs/") and where == "inputs":
            return pickled.getvalue()
        return content

    path = rewritten(program, tmp_path / f"{where}.pt2", poison)
    if where == "extra":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/data/constants/opaque_obj_0", pickled.getvalue())
    with pytest.raises(WeightsError, match="was not opened"):
        Renderer.load(path)
