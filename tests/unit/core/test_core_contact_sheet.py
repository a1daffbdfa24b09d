"""Contact sheets: places, sizes, determinism."""

import numpy as np

from agetf_pipeline.core.contact_sheet import CELL_PX, Tile, draw_sheet


def _tile(value: int, *lines: str) -> Tile:
    return Tile((np.full((20, 40, 3), value, np.uint8),), lines)


def test_pictures_stand_row_by_row_and_keep_their_shape():
    sheet = draw_sheet("title", [_tile(10, "a"), _tile(20, "b"), _tile(40, "c")], columns=2)
    found = [np.argwhere((sheet == value).all(axis=2)) for value in (10, 20, 40)]
    (top, left), (bottom, right) = found[0].min(axis=0), found[0].max(axis=0)
    assert (bottom - top + 1, right - left + 1) == (CELL_PX // 2, CELL_PX)
    assert found[1].min(axis=0)[1] > right  # beside the first
    assert found[2].min(axis=0)[0] > bottom  # below it


def test_the_same_tiles_give_the_same_bytes_and_words_change_them():
    first = draw_sheet("title", [_tile(10, "a")], 4, subtitle="small")
    assert np.array_equal(first, draw_sheet("title", [_tile(10, "a")], 4, subtitle="small"))
    assert not np.array_equal(first, draw_sheet("title", [_tile(10, "b")], 4, subtitle="small"))
    assert first.shape[0] > draw_sheet("title", [_tile(10, "a")], 4).shape[0]


def test_an_empty_sheet_and_a_missing_picture_are_drawn():
    assert draw_sheet("nothing", [], 8).shape[2] == 3
    pair = Tile((np.zeros((9, 9, 3), np.uint8), None), ("one is missing",))
    assert (draw_sheet("pairs", [pair], 4) == 0).all(axis=2).any()
