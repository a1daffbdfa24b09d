"""`agetf render` and `agetf model`: files, exit codes, messages."""

import numpy as np
import pytest
import torch
from PIL import Image

from agetf_pipeline import cli
from agetf_pipeline.age_transformer import morph
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.morph import morph_ages
from agetf_pipeline.age_transformer.renderer import KIND, Renderer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "run" / "weights.safetensors"
    card = {"kind": KIND, "model": SMALL.to_card(), "trained_on": "synthetic"}
    save_weights(path, AgeTransformer(SMALL), card)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rows, columns = np.mgrid[:300, :700]
    empty = np.stack([(rows + columns) // 5] * 3, axis=2).astype(np.uint8)
    one, two = empty.copy(), empty.copy()
    one[60:252, 60:252] = draw_face(draw_identity(8), 35.0, 192)
    two[60:252, 60:252] = draw_face(draw_identity(8), 35.0, 192)
    two[70:230, 450:610] = draw_face(draw_identity(8), 35.0, 160)
    for name, picture in (("none", empty), ("one", one), ("two", two)):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def render(*arguments):
    return cli.main(["render", "--quiet", *map(str, arguments)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_grid_and_files_are_the_default(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--input", photos / "one.png", "--model", weights.parent, "--out", out)
    assert render(*arguments, "--ages", 0, 33.5, 100) == 0
    written = ["one_age_000.png", "one_age_033.5.png", "one_age_100.png", "one_grid.png"]
    assert names(out) == written
    first = {name: (out / name).read_bytes() for name in written}
    assert render(*arguments, "--ages", 0, 33.5, 100) == 0
    assert {name: (out / name).read_bytes() for name in written} == first
    assert "one_grid.png and 3 more" in capsys.readouterr().out
    assert render(*arguments, "--format", "grid", "--precision", "bf16") == 0


def test_films_run_through_the_ages_given(weights, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(morph, "morph_ages", lambda ages: morph_ages(ages, 14))  # two passes
    code = render(
        "--input", photos / "one.png", "--model", weights, "--out", out,
        "--format", "gif", "mp4", "--ages", 80, 20,
    )  # fmt: skip
    assert code == 0
    assert names(out) == ["one_morph.gif", "one_morph.mp4"]
    with Image.open(out / "one_morph.gif") as film:
        # Frames that are the same picture are written once.
        assert 2 < film.n_frames <= 26


def test_none_or_several_faces_are_said_and_the_rest_is_rendered(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--input", photos, "--model", weights, "--out", out, "--format", "grid")
    assert render(*arguments) == 0
    assert names(out) == ["one_grid.png"]
    printed = capsys.readouterr().out
    assert "none.png (700 x 300 px); found none" in printed
    assert "two.png (700 x 300 px); found 2" in printed
    two = ("--input", photos / "two.png", "--model", weights, "--format", "files", "--ages", 40)
    assert render(*two, "--out", tmp_path / "a") == 1
    assert render(*two, "--out", tmp_path / "b", "--face", "largest") == 0
    assert render(*two, "--out", tmp_path / "c", "--face", "2") == 0
    largest, second = (tmp_path / name / "two_age_040.png" for name in "bc")
    assert largest.read_bytes() != second.read_bytes()
    assert render(*two, "--out", tmp_path / "d", "--aligned") == 0


def test_what_cannot_be_meant_is_refused_before_anything_is_rendered(
    weights, photos, tmp_path, capsys
):
    arguments = ("--input", photos, "--model", weights, "--out", tmp_path / "out")
    assert render(*arguments, "--ages", 120) == 1
    assert "0 to 100" in capsys.readouterr().err
    assert render(*arguments, "--ages", 30, "--format", "gif") == 1
    assert "--ages 5 95" in capsys.readouterr().err
    for wrong in (("--face", "0"), ("--face", "left"), ("--format", "avi")):
        with pytest.raises(SystemExit) as ended:
            render(*arguments, *wrong)
        assert ended.value.code == 2
    assert not (tmp_path / "out").exists()


def test_model_summary_prints_sizes(capsys):
    assert cli.main(["model", "summary", "tiny-64"]) == 0
    printed = capsys.readouterr().out
    assert "tiny-64" in printed
    assert "10 ages" in printed
    assert cli.main(["model", "summary", "huge"]) == 1


def test_model_export_writes_a_program_that_renders(weights, tmp_path, capsys):
    target = tmp_path / "model.pt2"
    assert cli.main(["model", "export", "--model", str(weights), "--out", str(target)]) == 0
    assert "written" in capsys.readouterr().out
    faces = np.stack([draw_face(draw_identity(4), 30.0, 32)])
    exported = Renderer.load(target).render(faces, [70]).astype(int)
    assert np.abs(Renderer.load(weights).render(faces, [70]) - exported).max() <= 1
    wrong = str(tmp_path / "model.onnx")
    assert cli.main(["model", "export", "--model", str(weights), "--out", wrong]) == 1
