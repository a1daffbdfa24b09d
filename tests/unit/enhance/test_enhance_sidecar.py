"""Sidecars: written whole, read strictly, and every later change visible."""

import json

import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.enhance.sidecar import SCHEMA, differences, read_sidecar, write_sidecar

ID, DIGEST = "a" * 64, "b" * 64
MEASURES = {
    f"{what}_{when}": 1.5
    for what in ("colourfulness", "sharpness", "blockiness")
    for when in ("before", "after")
}
ROW = {
    "image_id": ID,
    "enhanced_path": f"data/processed/caf_enhanced/one/{ID}.png",
    "enhanced_sha256": DIGEST,
    "colourised": True,
    "super_resolved": False,
    "decision": "grey",
    "ddcolor_version": "abc-1@256",
    "esrgan_version": None,
    "settings_version": "s",
    "input_width_px": 10,
    "input_height_px": 12,
    "output_width_px": 20,
    "output_height_px": 24,
    **{name: value for name, value in MEASURES.items() if "blockiness" not in name},
}
IMAGE = {"path": "raw/x.jpg", "face_path": "faces/x.png"}


def content(**changes) -> dict:
    return {
        "original": {
            "path": "raw/x.jpg",
            "sha256": ID,
            "face_path": "faces/x.png",
            "face_width_px": 10,
            "face_height_px": 12,
        },
        "output": {"file": f"{ID}.png", "sha256": DIGEST, "width_px": 20, "height_px": 24},
        "decision": {"colourised": True, "super_resolved": False, "reason": "grey"},
        "models": {"ddcolor_version": "abc-1@256", "esrgan_version": None},
        "settings_version": "s",
        "measures": dict(MEASURES),
        "written_at": "2026-11-22T10:00:00+00:00",
        **changes,
    }


def test_what_is_written_is_read_and_agrees_with_its_row(tmp_path):
    path = tmp_path / f"{ID}.json"
    write_sidecar(path, content())
    sidecar = read_sidecar(path)
    assert json.loads(path.read_text())["schema"] == SCHEMA == sidecar.version
    assert sidecar.original.path == "raw/x.jpg"
    assert list(differences(sidecar, ROW, IMAGE)) == []


def test_every_field_is_compared_with_row_and_image(tmp_path):
    path = tmp_path / f"{ID}.json"
    write_sidecar(path, content())
    sidecar = read_sidecar(path)
    for name, value in ROW.items():
        changed = value + 1 if isinstance(value, int | float) else f"{value}-other"
        changed = not value if isinstance(value, bool) else changed
        assert len(list(differences(sidecar, ROW | {name: changed}, IMAGE))) == 1, name
    for name in IMAGE:
        found = list(differences(sidecar, ROW, IMAGE | {name: "elsewhere"}))
        assert found == [(f"original.{name}", "elsewhere", IMAGE[name])]
    assert list(differences(sidecar, ROW, None)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"written_at": "2026-11-22T10:00:00"},
        {"output": {"file": "x.png", "sha256": "short", "width_px": 1, "height_px": 1}},
        {"measures": MEASURES | {"sharpness_after": float("nan")}},
        {"decision": {"colourised": "yes", "super_resolved": False, "reason": "grey"}},
    ],
)
def test_what_is_no_sidecar_is_not_written(tmp_path, changes):
    with pytest.raises(DataError, match="Expected a sidecar"):
        write_sidecar(tmp_path / "x.json", content(**changes))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_absent_or_foreign_file_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match="No such file"):
        read_sidecar(path)
    write_sidecar(path, content())
    good = path.read_text()
    for text, reason in (
        (good.replace("10:00", "11:00"), "checksum"),
        (good.replace('"blockiness_after": 1.5', '"blockiness_after": 1.6'), "checksum"),
        (good.replace(f'"schema": {SCHEMA}', '"schema": 7'), "schema 7 instead"),
        (good.replace(f'"schema": {SCHEMA}', '"scheme": 1'), "schema 'none' instead"),
        (good.replace("1.5", "NaN"), "finite number"),
        (good[:-30], "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "a list instead"),
        (" " * (1 << 21), "more than"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=reason):
            read_sidecar(path)
