"""A face that runs smoothly through ages and back, as a GIF or an MP4."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path

NUM_FRAMES = 48
"""Frames from the lowest age to the highest."""
_FRAME_MS = 40
_HOLD_MS = 600
_MIN_SIDE_PX = 256
_PAPER = (255, 255, 255)
_INK = (34, 38, 46)
# VP9 plays in browsers; MPEG-4 part 2 is what OpenCV's builds have had longest.
_CODECS = ("vp09", "mp4v")


def morph_ages(ages_years: Sequence[float], num_frames: int = NUM_FRAMES) -> list[float]:
    """Return evenly spaced ages from the lowest to the highest of those given.

    Raises:
        DataError: All ages are the same one, or there are fewer than two frames.
    """
    low, high = min(ages_years), max(ages_years)
    if low == high or num_frames < 2:
        raise DataError(
            f"Expected two ages or more and two frames or more for a morph; found the ages "
            f"{list(ages_years)} and {num_frames} frames. Give, say, --ages 5 95."
        )
    return [float(age) for age in np.linspace(low, high, num_frames)]


def draw_frames(renderings_AHWC: np.ndarray, ages_years: Sequence[float]) -> np.ndarray:
    """Return pictures of the renderings, each with its age written below.

    Args:
        renderings_AHWC: uint8 (A, S, S, 3), RGB.
        ages_years: The A ages; whole years are written.

    Returns:
        uint8 (A, H, W, 3); faces smaller than 256 px are enlarged to that (Lanczos). Sides are
        even, as films need them.
    """
    from PIL import Image, ImageDraw, ImageFont

    from agetf_pipeline.data.images import resize_rgb

    side = max(_MIN_SIDE_PX, renderings_AHWC.shape[1])
    strip = 2 * round(side / 14)
    font = ImageFont.load_default(size=strip * 0.75)
    frames = []
    for face, age in zip(renderings_AHWC, ages_years, strict=True):
        canvas = Image.new("RGB", (side, side + strip), _PAPER)
        canvas.paste(Image.fromarray(resize_rgb(face, side)), (0, 0))
        place = (side / 2, side + strip / 2)
        ImageDraw.Draw(canvas).text(place, f"{age:.0f} years", _INK, font, anchor="mm")
        frames.append(np.asarray(canvas))
    return np.stack(frames)


def save_gif(path: Path, frames_AHWC: np.ndarray) -> Path:
    """Write frames, forth and back, as a GIF that repeats for ever. Same frames, same bytes.

    All frames share one palette and are not dithered: with palettes of their own, and with dots
    that move, what stands still would flicker.
    """
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames_AHWC]
    palette = _common_palette(frames_AHWC)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    order, durations_ms = _forth_and_back(len(indexed))
    first, *others = [indexed[index] for index in order]
    with atomic_path(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=others,
            duration=durations_ms, loop=0, optimize=False,
        )  # fmt: skip
    return path


def save_mp4(path: Path, frames_AHWC: np.ndarray) -> Path:
    """Write frames, forth and back once, as an MP4.

    Raises:
        DataError: This build of OpenCV encodes none of the formats that go into an MP4.
    """
    height, width = frames_AHWC.shape[1:3]
    order, durations_ms = _forth_and_back(len(frames_AHWC))
    repeats = [round(duration / _FRAME_MS) for duration in durations_ms]
    sequence = np.repeat(order, repeats)
    with atomic_path(path) as temporary:
        for codec in _CODECS:
            if _write_film(temporary, codec, (width, height), lambda i: frames_AHWC[i], sequence):
                return path
        raise DataError(
            f"Expected OpenCV to encode an MP4 ({' or '.join(_CODECS)}); found no codec of these "
            "in this build. Render a GIF: --format gif."
        )


def _write_film(
    path: Path,
    codec: str,
    size: tuple[int, int],
    frame: Callable[[int], np.ndarray],
    sequence: np.ndarray,
) -> bool:
    """Encode a film and read its first picture back; return whether that worked."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 1000 / _FRAME_MS, size)
    if not writer.isOpened():
        return False
    for index in sequence:
        writer.write(np.ascontiguousarray(frame(index)[:, :, ::-1]))
    writer.release()
    reader = cv2.VideoCapture(str(path))
    works, _ = reader.read()
    reader.release()
    return works


def _forth_and_back(number: int) -> tuple[list[int], list[int]]:
    """Return the order of frames and how long each stays; the turning points stay longer."""
    order = [*range(number), *range(number - 2, 0, -1)]
    durations_ms = [_HOLD_MS if index in (0, number - 1) else _FRAME_MS for index in order]
    return order, durations_ms


def _common_palette(frames_AHWC: np.ndarray):
    """Return a palette image of 256 colours made for all frames."""
    from PIL import Image

    few = frames_AHWC[:: max(1, len(frames_AHWC) // 12), ::2, ::2]
    montage = Image.fromarray(few.reshape(-1, few.shape[2], 3))
    return montage.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
