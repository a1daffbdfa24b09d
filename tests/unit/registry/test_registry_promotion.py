import json

import pytest

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.registry.promotion import (
    AGE_MAE,
    FAILS,
    HOLDS,
    IDENTITY,
    NOT_MEASURED,
    Compared,
    decide,
)

CHAMPION = Compared("1", "a" * 64)
GATES = GatesConfig()
AGE, SIMILARITY = "against_champion/age_mae_years", "against_champion/id_similarity"


def figure(value, low=None, high=None, reason=None):
    return {"value": value, "low": low, "high": high, "n": 300, "reason": reason}


BETTER = {
    AGE_MAE: figure(7.0, 6.5, 7.5),
    IDENTITY: figure(0.8, 0.78, 0.82),
    AGE: figure(-1.0, -1.4, -0.6),
    SIMILARITY: figure(0.02, 0.01, 0.03),
    "against_champion/source_ssim": figure(0.0, -0.005, 0.005),
    "against_champion/source_lpips": figure(None, reason="no AlexNet: supply its weights"),
    "against_champion/face_found_rate": figure(0.0, -0.01, 0.01),
    f"{AGE}/age_group=20-29": figure(-0.5, -2.0, 1.0),
    f"{AGE}/age_group=70-120": figure(None, reason="suppressed: n = 4 is below 30"),
    f"{AGE}/gender=female": figure(-1.0, -3.0, 2.5),
    f"{SIMILARITY}/gender=female": figure(0.0, -0.03, 0.03),
}


def evaluation(champion: Compared | None = CHAMPION, must_hold=(), **changed):
    return {
        "champion": None
        if champion is None
        else {
            "model": "age-transformer",
            "version": champion.version,
            "weights_sha256": champion.weights_sha256,
        },
        "must_hold": list(must_hold),
        "metrics": BETTER | changed,
    }


def decide_with(name: str, item: dict):
    return decide(evaluation(**{name: item}), CHAMPION, GATES)


def test_a_better_version_is_promoted_and_every_gate_says_why():
    decision = decide(evaluation(), CHAMPION, GATES)
    assert decision.promote
    assert [gate.verdict for gate in decision.gates] == [
        HOLDS, HOLDS, HOLDS, NOT_MEASURED, HOLDS, HOLDS, HOLDS,
    ]  # fmt: skip
    assert "supply its weights" in decision.gates[3].reason
    assert not decision.gates[3].closes
    stored = json.loads(json.dumps([gate.as_dict() for gate in decision.gates]))
    assert stored[0] | {"low": -1.4, "high": -0.6, "margin": 0.5, "n": 300} == stored[0]


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        (AGE, (0.3, 0.1, 0.5), (0.3, 0.1, 0.51)),
        (SIMILARITY, (0.0, -0.01, 0.01), (0.0, -0.011, 0.01)),
        ("against_champion/source_ssim", (0.0, -0.01, 0.01), (0.0, -0.011, 0.01)),
        ("against_champion/source_lpips", (0.0, -0.01, 0.01), (0.0, -0.01, 0.011)),
        ("against_champion/face_found_rate", (0.0, -0.02, 0.0), (0.0, -0.021, 0.0)),
        (f"{AGE}/gender=female", (0.0, -3.0, 3.0), (0.0, -3.0, 3.1)),
        (f"{SIMILARITY}/age_group=0-2", (0.0, -0.05, 0.1), (0.0, -0.06, 0.1)),
    ],
)
def test_the_worse_end_of_the_interval_is_held_to_the_margin(name, within, beyond):
    assert decide_with(name, figure(*within)).promote
    decision = decide_with(name, figure(*beyond))
    assert not decision.promote
    assert [gate.figure for gate in decision.gates if gate.closes] == [name]
    assert sum("may be worse than" in reason for reason in decision.reasons) == 1


def test_a_wide_interval_around_no_difference_is_no_proof():
    decision = decide_with(AGE, figure(-0.2, -1.5, 1.1))
    assert not decision.promote
    assert decision.gates[0].verdict == FAILS


def test_the_worst_of_the_groups_is_named_and_the_suppressed_are_counted():
    groups = decide(evaluation(), CHAMPION, GATES).gates[5]
    assert groups.figure == f"{AGE}/gender=female"
    assert (groups.num_cells, groups.num_suppressed) == (2, 1)
    assert "gender=female" in groups.reason
    assert "groups suppressed: 1" in groups.reason


def test_a_group_without_an_interval_closes_nothing():
    item = figure(9.0, reason="no interval: it needs two identities")
    decision = decide_with(f"{AGE}/gender=female", item)
    assert decision.promote
    assert decision.gates[5].num_suppressed == 2


def test_age_and_identity_must_have_been_measured():
    for name in (AGE, SIMILARITY):
        for item in (figure(None, reason="no embedder"), figure(0.0, reason="no interval")):
            decision = decide_with(name, item)
            assert not decision.promote
            assert any(item["reason"] in reason for reason in decision.reasons)
    without = evaluation()
    without["metrics"] = {name: item for name, item in BETTER.items() if name != AGE}
    assert not decide(without, CHAMPION, GATES).promote


def test_the_first_version_needs_age_identity_and_a_rising_age():
    first = evaluation(champion=None)
    assert decide(first, None, GATES).promote
    for name in (AGE_MAE, IDENTITY):
        missing = evaluation(champion=None, **{name: figure(None, reason="no reader")})
        decision = decide(missing, None, GATES)
        assert not decision.promote
        assert "agetf registry promote" in decision.reasons[-1]
        assert any("no reader" in reason for reason in decision.reasons)
    for verdict, promote in (("holds", True), ("not judged", True), ("does not hold", False)):
        statement = {"name": "rendered_age_rises", "verdict": verdict, "text": "It rises."}
        judged = evaluation(champion=None, must_hold=[statement])
        assert decide(judged, None, GATES).promote is promote


@pytest.mark.parametrize(
    ("compared", "now", "says"),
    [
        (CHAMPION, Compared("5", "b" * 64), "compared with version 1, the champion is 5 now"),
        (CHAMPION, Compared("1", "b" * 64), "other weights of version 1"),
        (CHAMPION, None, "there is no champion now"),
        (None, CHAMPION, "compared with no champion, the champion is 1 now"),
    ],
)
def test_another_champion_than_the_one_compared_with_needs_another_evaluation(compared, now, says):
    decision = decide(evaluation(champion=compared), now, GATES)
    assert not decision.promote
    assert says in decision.reasons[0]
    assert "run evaluate again" in decision.reasons[0]


def test_a_loss_within_the_margin_is_only_paid_by_a_gain():
    # Demonstrably worse by a little: not promoted, however small the margin was used.
    figures = {AGE: figure(0.2, 0.14, 0.29), SIMILARITY: figure(-0.0006, -0.001, -0.0001)}
    decision = decide(evaluation(**figures), CHAMPION, GATES)
    assert not decision.promote
    assert not any(gate.closes for gate in decision.gates)
    assert [gate.shown for gate in decision.gates[:2]] == ["worse", "worse"]
    assert "better in nothing that counts" in decision.reasons[-1]
    # The same loss of identity for younger or older faces that are read so: a trade.
    traded = figures | {AGE: figure(-1.0, -1.4, -0.6)}
    assert decide(evaluation(**traded), CHAMPION, GATES).promote
    # Not shown to be anything: as good as the champion.
    level = {AGE: figure(0.0, -0.2, 0.2), SIMILARITY: figure(0.0, -0.001, 0.001)}
    assert decide(evaluation(**level), CHAMPION, GATES).promote
