"""Expectations on captions: what blocks, what warns, and that versions do not mix."""

import math

import numpy as np
import pytest

from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.quality.caption_rules import CAPTION_RULES, configured_caption_rules
from agetf_pipeline.quality.suites import judge
from agetf_pipeline.quality.verdict import SuiteResult

FAILED = {"status": "failed", "caption": None, "text_embedding": None, "reason": "why"}


def caption_row(number: int, **changes) -> dict:
    row = dict.fromkeys(CAPTIONS.schema.names)
    row |= {"image_id": f"{number:03}", "model_version": "m", "prompt_hash": "p", "prompt": "?"}
    row |= {"status": "ok", "num_tokens": 7, "finished": True}
    row["caption"] = row["raw_caption"] = f"A woman with {number} silver earrings."
    row["image_embedding"] = row["text_embedding"] = np.array([1, number], np.float16)
    row |= changes
    for kind in ("image_embedding", "text_embedding"):
        row[kind] = None if row[kind] is None else np.asarray(row[kind], np.float16)
    return row


def judged(*odd: dict, num: int = 10) -> SuiteResult:
    rows = [caption_row(n) for n in range(num)]
    for number, changes in enumerate(odd):
        rows[number] = caption_row(number, **changes)
    rules = (*CAPTION_RULES, *configured_caption_rules(CaptionChecks()))
    return judge("captions", to_frame(rows, CAPTIONS), rules)


def failed(result: SuiteResult) -> dict[str, list[str]]:
    return {verdict.name: verdict.examples for verdict in result.verdicts if not verdict.passed}


def test_good_captions_pass():
    assert judged().passed


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"caption": "An elderly woman with earrings."}, "no_age_words"),
        ({"image_embedding": [math.nan, 0]}, "embeddings_finite"),
        ({"text_embedding": [math.inf, 0]}, "embeddings_finite"),
        ({"image_embedding": [0, 0]}, "embeddings_not_zero"),
        ({"text_embedding": None}, "embeddings_there"),
        ({**FAILED, "reason": None}, "failure_explained"),
    ],
)
def test_what_would_spoil_training_blocks_and_is_named(changes, rule):
    result = judged(changes, num=100)
    assert failed(result) == {rule: ["000"]}
    assert result.blocks


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"caption": "Earrings."}, {"not_short"}),
        ({"caption": "a woman and " * 40}, {"not_long"}),
        ({"finished": False}, {"not_cut"}),
        ({"caption": "Una mujer con el pelo largo y gafas."}, {"english"}),
        ({**FAILED, "raw_caption": None}, {"succeeded", "not_empty"}),
        ({**FAILED, "raw_caption": "She is 45."}, {"succeeded", "more_than_age"}),
    ],
)
def test_what_a_person_should_see_warns(changes, rules):
    result = judged(changes)
    assert set(failed(result)) == rules
    assert set(map(tuple, failed(result).values())) == {("000",)}
    assert not result.blocks


def test_repeats_are_counted_within_a_version():
    rows = [caption_row(n, caption="A woman.") for n in range(5)]
    rows += [caption_row(n) for n in range(5, 10)]
    rules = configured_caption_rules(CaptionChecks(min_words=1))
    result = judge("captions", to_frame(rows, CAPTIONS), rules)
    assert failed(result) == {"varied": [f"00{n}" for n in range(5)]}
    # One image in five versions with the same words: nothing is repeated.
    versions = [caption_row(1, prompt_hash=f"p{n}") for n in range(9)]
    assert judge("captions", to_frame(versions, CAPTIONS), rules).passed
    # A version in which all is well does not hide another.
    good = [caption_row(n, model_version="other") for n in range(300)]
    several = judge("captions", to_frame([*rows, *good], CAPTIONS), rules)
    assert next(v for v in several.verdicts if v.name == "varied").num_broken == 5
