"""One photograph of any kind and size, and which of its faces."""

import io

import numpy as np
import pytest
from PIL import Image
from png_files import png_16

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.faces import FoundFace, find_and_crop
from agetf_pipeline.data.photos import face_of_photo, middle_square, read_photo
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

LARGE, SMALL, TINY = FoundFace(10, 10, 80), FoundFace(200, 200, 40), FoundFace(100, 100, 10)
SCENE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
FACE = draw_face(draw_identity(8), 35.0, 128)


class Fixed:
    def __init__(self, *faces: FoundFace) -> None:
        self.faces = list(faces)

    def find(self, rgb: np.ndarray) -> list[FoundFace]:
        return self.faces


def test_one_face_is_cut_out_as_ingest_cuts_it():
    found = face_of_photo(SCENE, crop_px=64, detector=Fixed(LARGE, TINY))
    expected = find_and_crop(SCENE, 64, Fixed(LARGE, TINY))
    assert expected is not None
    np.testing.assert_array_equal(found.rgb, expected[0])
    assert list(found.flags) == expected[1]


def test_of_several_faces_a_person_says_which():
    detector = Fixed(SMALL, LARGE, TINY)
    with pytest.raises(DataError) as refused:
        face_of_photo(SCENE, detector=detector)
    message = str(refused.value)
    assert "found 3" in message
    assert "1: 80 px wide around (50, 50)" in message
    assert "2: 40 px wide around (220, 220)" in message
    assert "--face largest" in message
    largest = face_of_photo(SCENE, choice="largest", detector=detector)
    first = face_of_photo(SCENE, choice=1, detector=detector)
    second = face_of_photo(SCENE, choice=2, detector=detector)
    np.testing.assert_array_equal(largest.rgb, first.rgb)
    np.testing.assert_array_equal(second.rgb, face_of_photo(SCENE, detector=Fixed(SMALL)).rgb)
    assert "several_faces" in largest.flags
    for wrong in (0, 4):
        with pytest.raises(DataError, match="from 1 to 3"):
            face_of_photo(SCENE, choice=wrong, detector=detector)


def test_no_face_says_what_was_looked_for():
    for choice in ("only", "largest", 1):
        with pytest.raises(DataError, match=r"400 x 300 px.*looked for.*--aligned"):
            face_of_photo(SCENE, choice=choice, detector=Fixed())
    whole = face_of_photo(SCENE, aligned=True, detector=Fixed())
    np.testing.assert_array_equal(whole.rgb, SCENE[:, 50:350])


def saved(path, image: Image.Image, **options) -> str:
    image.save(path, **options)
    return str(path)


def test_kinds_of_files_come_out_as_upright_rgb(tmp_path):
    picture = Image.fromarray(FACE)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "grey": saved(tmp_path / "grey.png", picture.convert("L")),
        "opaque": saved(tmp_path / "rgba.png", picture.convert("RGBA")),
        "cmyk": saved(tmp_path / "cmyk.jpg", picture.convert("CMYK"), quality=95),
        "turned": saved(tmp_path / "turned.png", turned, exif=exif.tobytes()),
        "webp": saved(tmp_path / "face.webp", picture, lossless=True),
    }
    (tmp_path / "deep.png").write_bytes(png_16(FACE.astype(np.uint16) * 257, 2))
    (tmp_path / "deep_grey.png").write_bytes(png_16(FACE[:, :, 0].astype(np.uint16) * 257, 0))
    files["deep"] = str(tmp_path / "deep.png")
    files["deep_grey"] = str(tmp_path / "deep_grey.png")
    read = {name: face_of_photo(path, aligned=True) for name, path in files.items()}
    for name in ("opaque", "webp", "deep"):
        np.testing.assert_array_equal(read[name].rgb, FACE)
    np.testing.assert_array_equal(read["turned"].rgb, FACE)
    assert "exif_rotated" in read["turned"].flags
    assert np.abs(read["cmyk"].rgb.astype(int) - FACE).mean() < 4
    np.testing.assert_array_equal(read["grey"].rgb, np.asarray(picture.convert("L").convert("RGB")))
    assert (read["deep_grey"].rgb == FACE[:, :, :1]).all()


def test_small_and_huge_pictures_are_taken_and_unreadable_ones_are_not(tmp_path):
    tiny = saved(tmp_path / "tiny.png", Image.fromarray(FACE).resize((20, 24)))
    assert face_of_photo(tiny, aligned=True).rgb.shape == (20, 20, 3)
    huge = saved(tmp_path / "huge.png", Image.new("RGB", (9000, 5000)), compress_level=1)
    assert read_photo(huge)[0].shape == (5000, 9000, 3)
    clear = saved(tmp_path / "clear.png", Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    with pytest.raises(DataError, match="alpha"):
        read_photo(clear)
    stream = io.BytesIO()
    Image.fromarray(FACE).save(stream, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:900])
    with pytest.raises(DataError, match="ends before"):
        read_photo(tmp_path / "cut.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_photo(tmp_path / "absent.jpg")
    for wrong in (FACE[:, :, 0], FACE.astype(float), FACE[:0]):
        with pytest.raises(DataError, match="uint8"):
            read_photo(wrong)


def test_the_middle_square_is_of_either_orientation():
    assert middle_square(SCENE).shape == middle_square(SCENE.swapaxes(0, 1)).shape == (300, 300, 3)
