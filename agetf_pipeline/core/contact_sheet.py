"""Contact sheets: many small pictures on one page, a few words under each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CELL_PX = 128

_MARGIN_PX = 10
_TITLE_PX = 40
_LINE_PX = 14
_MIN_WIDTH_PX = 640
_PAPER, _CELL = (248, 248, 246), (225, 225, 222)
_INK, _FAINT = (30, 30, 30), (120, 120, 120)


@dataclass(frozen=True)
class Tile:
    """One place of the sheet.

    Attributes:
        pictures: uint8 (H, W, 3), RGB, of any size, side by side; None leaves an empty cell.
        lines: Words under them; the first is dark, the others are grey.
    """

    pictures: Sequence[np.ndarray | None]
    lines: Sequence[str]


def draw_sheet(
    title: str, tiles: Sequence[Tile], columns: int, subtitle: str | None = None
) -> np.ndarray:
    """Draw a sheet, row by row.

    Args:
        title: Above it.
        tiles: The places; all have as many pictures and lines as the first.
        columns: Places in a row, at most.
        subtitle: Below the title, smaller.

    Returns:
        uint8 (H, W, 3), RGB. The same bytes for the same tiles.
    """
    from PIL import Image, ImageDraw, ImageFont

    num_pictures = max((len(tile.pictures) for tile in tiles), default=1)
    num_lines = max((len(tile.lines) for tile in tiles), default=0)
    columns = min(columns, max(1, len(tiles)))
    half = _MARGIN_PX // 2
    step_x = num_pictures * (CELL_PX + half) - half + 2 * _MARGIN_PX
    step_y = CELL_PX + 6 + num_lines * _LINE_PX + _MARGIN_PX
    top = _TITLE_PX + (18 if subtitle else 0)
    width = max(columns * step_x + 2 * _MARGIN_PX, _MIN_WIDTH_PX)
    height = top + -(-len(tiles) // columns) * step_y + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    big, small = ImageFont.load_default(size=18), ImageFont.load_default(size=12)
    draw.text((2 * _MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=big)
    if subtitle:
        draw.text((2 * _MARGIN_PX, _TITLE_PX - 6), subtitle, fill=_FAINT, font=small)
    for place, tile in enumerate(tiles):
        x = 2 * _MARGIN_PX + place % columns * step_x
        y = top + _MARGIN_PX + place // columns * step_y
        for number, picture in enumerate(tile.pictures):
            sheet.paste(_cell(picture), (x + number * (CELL_PX + half), y))
        for number, line in enumerate(tile.lines):
            at = (x, y + CELL_PX + 3 + number * _LINE_PX)
            draw.text(at, line, fill=_FAINT if number else _INK, font=small)
    return np.asarray(sheet)


def _cell(picture: np.ndarray | None):
    """Return a square cell with the whole picture in its middle."""
    from PIL import Image

    cell = Image.new("RGB", (CELL_PX, CELL_PX), _CELL)
    if picture is None:
        return cell
    image = Image.fromarray(picture)
    factor = CELL_PX / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    cell.paste(image, ((CELL_PX - size[0]) // 2, (CELL_PX - size[1]) // 2))
    return cell
