"""The audit of captions: every figure on a table made by hand."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agetf_pipeline.captions.audit import CaptionAudit, audit_captions
from agetf_pipeline.captions.language import is_foreign
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import to_frame, write_table

VERSION, OTHER = CaptionVersion("model", "prompt"), CaptionVersion("model", "other")
GOOD = "A woman with long brown hair."


def row(name: str, caption: str | None = GOOD, **changes) -> dict:
    seed = sum(map(ord, name))
    vector = np.random.default_rng(seed).normal(size=4)
    whole = dict.fromkeys(CAPTIONS.schema.names)
    whole |= {
        "image_id": name, "model_version": VERSION.model_version,
        "prompt_hash": VERSION.prompt_hash, "prompt": "Describe the face.", "status": "ok",
        "raw_caption": caption, "caption": caption, "num_tokens": 9, "finished": True,
        "image_embedding": vector / np.linalg.norm(vector), "text_embedding": np.ones(4),
    }  # fmt: skip
    whole |= changes
    for kind in ("image_embedding", "text_embedding"):
        if whole[kind] is not None:
            whole[kind] = np.asarray(whole[kind], np.float16)
    return whole


def audit(root: Path, rows: list[dict], **checks) -> CaptionAudit:
    workspace = Workspace(root)
    write_table(workspace, CAPTIONS, "ffhq_aging", to_frame(rows, CAPTIONS))
    return audit_captions(workspace, ["ffhq_aging"], VERSION, CaptionChecks(**checks))


def flags_of(found: CaptionAudit) -> dict[str, list[str]]:
    return dict(found.rows.select("image_id", "flags").iter_rows())


def test_words_are_counted_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    failed = {"status": "failed", "image_embedding": None, "text_embedding": None, "reason": "why"}
    rows = [
        row("good"),
        row("changed", "A man with a beard.", raw_caption="A young man with a beard."),
        row("short", "Hair."),
        row("long", "a man and " * 30),
        row("cut", "A man with a hat and", finished=False),
        row("foreign", "Ein Mann mit Brille in der Sonne."),
        row("aged", "An elderly woman with grey hair."),
        row("nothing", None, **failed, num_tokens=0),
        row("ages", None, raw_caption="She is 45.", **failed),
        row("gone", None, **failed | {"num_tokens": None, "finished": None}),
        row("other", "Ja.", prompt_hash=OTHER.prompt_hash),
    ]
    found = audit(tmp_path, rows)
    expected = {
        "num_usable": 7, "num_distinct": 7, "num_changed": 1, "num_empty": 1, "num_wordless": 1,
        "num_short": 1, "num_long": 1, "num_cut": 1, "num_not_english": 1, "num_repeated": 0,
        "num_age_words": 1,
    }  # fmt: skip
    assert {name: found.counts[name] for name in expected} == expected
    assert found.rows.height == 10
    assert found.figures["changed_fraction"] == pytest.approx(1 / 7)
    assert found.figures["distinct_fraction"] == 1
    assert found.figures["cut_fraction"] == pytest.approx(1 / 7)
    assert found.figures["empty_fraction"] == pytest.approx(1 / 9)  # of those that were asked
    flags = flags_of(found)
    assert {name: its for name, its in flags.items() if its} == {
        "short": ["short"], "long": ["long"], "cut": ["cut"], "foreign": ["not_english"],
        "aged": ["age_words"], "nothing": ["failed", "empty"], "ages": ["failed", "wordless"],
        "gone": ["failed"],
    }  # fmt: skip
    assert "tell an age, such as 'An elderly woman" in found.messages[0]
    assert any("caption.max_new_tokens" in message for message in found.messages)


def test_a_caption_for_everybody_is_repeated_within_a_version_alone(tmp_path: Path) -> None:
    rows = [row(f"same{n}") for n in range(5)]
    rows += [row(f"own{n}", f"A man with {n} black hats.") for n in range(10)]
    assert audit(tmp_path, rows).counts["num_repeated"] == 5  # 5 of 15 > 0.2
    assert audit(tmp_path, rows, max_repeated_fraction=0.4).counts["num_repeated"] == 0
    assert audit(tmp_path, rows[1:]).counts["num_repeated"] == 0  # four are no sign
    twice = rows + [row(f"own{n}", prompt_hash=OTHER.prompt_hash) for n in range(10)]
    found = audit(tmp_path, twice)
    assert (found.counts["num_repeated"], found.counts["num_distinct"]) == (5, 11)
    assert found.figures["repeated_fraction"] == pytest.approx(1 / 3)


def test_embeddings_are_judged_by_their_norms_and_compared(tmp_path: Path) -> None:
    rows = [row(f"plain{n}", image_embedding=np.eye(4)[n]) for n in range(3)]
    rows += [
        row("far", image_embedding=[4, 0, 0, 0]),
        row("near", image_embedding=[0.25, 0, 0, 0]),
        row("zero", image_embedding=np.zeros(4)),
        row("nan", image_embedding=[math.nan, 0, 0, 0]),
        row("none", text_embedding=None),
        row("twin", image_embedding=np.eye(4)[0]),
    ]
    found = audit(tmp_path, rows)
    expected = {
        "num_image_norm_far": 2, "num_image_norm_zero": 1, "num_image_not_finite": 1,
        "num_without_image_embedding": 0, "num_without_text_embedding": 1,
        "num_text_norm_far": 0, "num_same_embedding": 2,
    }  # fmt: skip
    assert {name: found.counts[name] for name in expected} == expected
    assert found.figures["image_norm_min"] == 0.25
    assert found.figures["image_norm_median"] == pytest.approx(1, abs=1e-3)
    assert found.figures["image_norm_max"] == 4
    assert found.figures["text_norm_max"] == 2
    flags = flags_of(found)
    odd = {name for name, its in flags.items() if "embedding" in its}
    assert odd == {"far", "near", "zero", "nan", "none"}
    assert {name for name, its in flags.items() if "twin" in its} == {"plain0", "twin"}
    assert audit(tmp_path, rows, max_norm_factor=5.0).counts["num_image_norm_far"] == 0


def test_what_cannot_be_known_is_null_with_a_reason(tmp_path: Path) -> None:
    found = audit(tmp_path, [])
    assert set(found.figures.values()) == {None}
    assert found.messages == []
    nowhere = audit_captions(Workspace(tmp_path), ["caf/none"], VERSION, CaptionChecks())
    assert (nowhere.rows.height, nowhere.counts["num_usable"]) == (0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "A man with a beard.",
        "Brown hair, brown eyes, glasses, smiling face.",
        "The person in the image has a round face with full lips and a slight smile.",
        "Freckles, green eyes, curly ponytail, hoop earrings.",
        "A café owner wearing a beret, naïve expression.",
    ],
)
def test_english_is_english(text: str) -> None:
    assert not _foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "Ein junger Mann mit einem Bart und braunen Haaren.",
        "Un homme avec des lunettes et une barbe.",
        "Una mujer con el pelo largo y gafas.",
        "Un uomo con la barba e gli occhiali.",
        "Um homem com barba e óculos escuros.",
        "De man is een persoon met bruin haar.",
        "En man med skägg och glasögon.",
        "Gözlüklü ve sakallı bir adam gülümsüyor.",
        "一个戴眼镜的男人",
        "Мужчина с бородой и в очках",
        "qwe rty uio asd fgh",
    ],
)
def test_other_languages_and_noise_are_not(text: str) -> None:
    assert _foreign(text)


def _foreign(text: str) -> bool:
    checks = CaptionChecks()
    judged = is_foreign("c", checks.min_english_fraction, checks.max_other_script_fraction)
    return pl.DataFrame({"c": [text]}).select(judged)["c"][0]
