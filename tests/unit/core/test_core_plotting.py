"""Plots are files that do not change when their numbers do not."""

from pathlib import Path

import matplotlib as mpl

from agetf_pipeline.core.plotting import BLUE, figure, save_figure


def _draw(path: Path) -> bytes:
    fig = figure(3, 2)
    axes = fig.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], color=BLUE, label="a line")
    axes.set_title("A title")
    axes.legend()
    save_figure(path, fig)
    return path.read_bytes()


def test_same_numbers_same_bytes(tmp_path):
    first = _draw(tmp_path / "a.png")
    assert first == _draw(tmp_path / "b.png")
    assert first.startswith(b"\x89PNG")
    assert b"Matplotlib" not in first


def test_readers_own_style_is_left_alone(tmp_path):
    before = dict(mpl.rcParams)
    _draw(tmp_path / "a.png")
    assert dict(mpl.rcParams) == before


def test_vector_formats_work(tmp_path):
    fig = figure(2, 2)
    fig.subplots(1, 2)
    save_figure(tmp_path / "a.svg", fig)
    assert (tmp_path / "a.svg").stat().st_size > 0
