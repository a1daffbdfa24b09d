import cv2
import numpy as np
import pytest

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.enhance.decide import decide
from agetf_pipeline.enhance.measures import Measures, blockiness, colourfulness, measure, sharpness
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return draw_face(draw_identity(3), 30.0, 128)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def test_grey_has_no_colour_and_colour_has(face):
    grey = np.repeat(face.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert colourfulness(grey) == 0
    assert colourfulness(face) > 10


def test_colourfulness_is_hasler_and_suesstrunks():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0] = (255, 0, 0)
    # rg: 255 255 0 0, yb: 127.5 127.5 0 0.
    expected = np.hypot(127.5, 63.75) + 0.3 * np.hypot(127.5, 63.75)
    assert colourfulness(picture) == pytest.approx(expected, rel=1e-5)


def test_blur_lowers_sharpness_and_contrast_does_not_change_it(face):
    values = [sharpness(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (0.5, 1.0, 2.0)]
    assert sharpness(face) > values[0] > values[1] > values[2] > 0
    checks = (np.indices((32, 32)).sum(axis=0) % 4 < 2)[..., None] * np.ones(3)
    strong, weak = (checks * 200).astype(np.uint8), (checks * 100 + 20).astype(np.uint8)
    assert sharpness(weak) == pytest.approx(sharpness(strong), rel=1e-3)
    assert sharpness(np.full((16, 16, 3), 90, np.uint8)) == 0


def test_jpeg_blocks_are_seen_at_any_quality_that_shows_them(face):
    assert blockiness(face) < 1.4
    assert blockiness(jpeg(face, 10)) > 2
    assert blockiness(cv2.GaussianBlur(face, (0, 0), 2)) < 1.4
    assert blockiness(face[:16, :16]) == 1.0


def test_sharpness_is_measured_at_the_target_size(face):
    large = cv2.resize(face, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert measure(large, 128).sharpness > 4 * measure(large, 512).sharpness


def measures(side=128, colour=30.0, sharp=0.2, blocks=1.0, height=None) -> Measures:
    return Measures(side, height or side, colour, sharp, blocks)


CONFIG = EnhanceConfig(target_px=128, min_sharpness=0.04, max_blockiness=1.6)


@pytest.mark.parametrize(
    ("found", "colourise", "super_resolve", "word"),
    [
        (measures(), False, False, "no defect"),
        (measures(colour=0.0), True, False, "grey"),
        (measures(side=64), False, True, "64 px < 128 px"),
        (measures(sharp=0.01), False, True, "blurred"),
        (measures(blocks=3.0), False, True, "JPEG blocks"),
        (measures(side=64, colour=0.0), True, True, "grey"),
    ],
)
def test_each_picture_gets_what_it_needs_and_the_reason(found, colourise, super_resolve, word):
    decision = decide(found, CONFIG)
    assert (decision.colourise, decision.super_resolve) == (colourise, super_resolve)
    assert word in decision.reason


def test_forced_modes_win():
    never = CONFIG.model_copy(update={"colourise": "never", "super_resolve": "never"})
    decision = decide(measures(side=64, colour=0.0), never)
    assert not decision.colourise
    assert not decision.super_resolve
    assert "Lanczos" in decision.reason
    assert decision.output_width_px == 128
    always = CONFIG.model_copy(update={"colourise": "always", "super_resolve": "always"})
    decision = decide(measures(), always)
    assert decision.colourise
    assert decision.super_resolve
    assert decision.output_width_px == 128


def test_aspect_is_kept_and_larger_pictures_keep_their_size():
    small, large = (
        decide(measures(64, height=96), CONFIG),
        decide(measures(300, height=200), CONFIG),
    )
    assert (small.output_width_px, small.output_height_px) == (128, 192)
    assert (large.output_width_px, large.output_height_px) == (300, 200)
