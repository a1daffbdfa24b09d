import json

import pytest

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.registry.gates import FAILS, HOLDS, NOT_MEASURED
from agetf_pipeline.registry.promotion import (
    AGE_MAE,
    IDENTITY,
    Compared,
    decide,
)

CHAMPION = Compared("1", "a" * 64, "synthetic")
SAMPLING = {"level": 0.95, "num_bootstrap": 500, "min_cell": 30}
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
    "against_champion/kid_own_features": figure(0.0, -0.002, 0.002),
    "against_champion/sharpness_error": figure(0.0, -0.02, 0.02),
    f"{AGE}/age_group=20-29": figure(-0.5, -2.0, 1.0),
    f"{AGE}/age_group=70-120": figure(None, reason="suppressed: n = 4 is below 30"),
    f"{AGE}/gender=female": figure(-1.0, -3.0, 2.5),
    f"{SIMILARITY}/gender=female": figure(0.0, -0.03, 0.03),
}


def evaluation(champion: Compared | None = CHAMPION, must_hold=(), **changed):
    return {
        "synthetic": True,
        "sampling": SAMPLING,
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
        HOLDS, HOLDS, HOLDS, NOT_MEASURED, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS,
    ]  # fmt: skip
    assert "supply its weights" in decision.gates[3].reason
    assert not decision.gates[3].closes
    stored = json.loads(json.dumps([gate.as_dict() for gate in decision.gates]))
    assert stored[0] | {"low": -1.4, "high": -0.6, "margin": 0.5, "n": 300} == stored[0]


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        (AGE, (0.3, -0.1, 0.5), (0.3, -0.1, 0.51)),
        (SIMILARITY, (0.0, -0.01, 0.01), (0.0, -0.011, 0.01)),
        ("against_champion/kid_own_features", (0.0, -0.01, 0.005), (0.0, -0.01, 0.006)),
        ("against_champion/kid", (0.0, -0.01, 0.005), (0.0, -0.01, 0.006)),
        ("against_champion/sharpness_error", (0.0, -0.1, 0.05), (0.0, -0.1, 0.06)),
        ("against_champion/source_ssim", (0.0, -0.01, 0.01), (0.0, -0.011, 0.01)),
        ("against_champion/source_lpips", (0.0, -0.01, 0.01), (0.0, -0.01, 0.011)),
        ("against_champion/face_found_rate", (0.0, -0.02, 0.0), (0.0, -0.021, 0.0)),
        (f"{AGE}/gender=female", (0.0, -3.0, 3.0), (0.0, -3.0, 3.1)),
        (f"{AGE}/target_age=85", (2.9, 2.8, 3.0), (3.0, 2.9, 3.1)),
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
    groups = decide(evaluation(), CHAMPION, GATES).gates[7]
    assert groups.figure == f"{AGE}/gender=female"
    assert (groups.num_cells, groups.num_suppressed) == (2, 1)
    assert "gender=female" in groups.reason
    assert "groups suppressed: 1" in groups.reason


def test_a_group_without_an_interval_closes_nothing():
    item = figure(9.0, reason="no interval: it needs two identities")
    decision = decide_with(f"{AGE}/gender=female", item)
    assert decision.promote
    assert decision.gates[7].num_suppressed == 2


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


def test_a_shown_loss_has_to_be_outweighed_in_margins():
    def decides(**changed):
        return decide(evaluation(**changed), CHAMPION, GATES)

    # Demonstrably worse by a little: not promoted, however small the margin was used.
    both = {AGE: figure(0.2, 0.14, 0.29), SIMILARITY: figure(-0.0006, -0.001, -0.0001)}
    decision = decides(**both)
    assert not decision.promote
    assert not any(gate.closes for gate in decision.gates)
    assert [gate.shown for gate in decision.gates[:2]] == ["worse", "worse"]
    assert "better in nothing that counts" in decision.reasons[-1]
    # Two margins of age for a sixteenth of a margin of identity: a trade.
    assert decides(**(both | {AGE: figure(-1.0, -1.4, -0.6)})).promote
    # 0.4 margins of age for half a margin of identity, or of any other figure: none.
    gain = {AGE: figure(-0.2, -0.3, -0.1), SIMILARITY: figure(0.0, -0.001, 0.001)}
    assert decides(**gain).promote
    for name, value, margin in (
        (SIMILARITY, -0.005, 0.01), ("against_champion/source_ssim", -0.005, 0.01),
        ("against_champion/face_found_rate", -0.01, 0.02),
        ("against_champion/kid_own_features", 0.0025, 0.005),
        ("against_champion/sharpness_error", 0.025, 0.05),
    ):  # fmt: skip
        lost = figure(value, *sorted((value - margin / 4, value + margin / 4)))
        decision = decides(**(gain | {name: lost}))
        assert not decision.promote, name
        assert "to gain 0.4 margins (age_mae_years) and to lose 0.5" in decision.reasons[-1]
    # What decides counts; a gain in anything else pays for nothing.
    sharper = {"against_champion/sharpness_error": figure(-0.2, -0.3, -0.1)}
    level = {AGE: figure(0.0, -0.2, 0.2), SIMILARITY: figure(0.0, -0.001, 0.001)}
    assert not decides(**(level | sharper)).promote


def test_equal_models_do_not_change_places():
    level = {AGE: figure(0.0, -0.2, 0.2), SIMILARITY: figure(0.0, -0.001, 0.001)}
    for champion in (CHAMPION, Compared("2", "b" * 64)):  # either way round
        decision = decide(evaluation(champion, **level), champion, GATES)
        assert not decision.promote
        assert "the champion stays" in decision.reasons[-1]


def test_a_chain_of_small_losses_does_not_begin():
    # Measured on models of which each ages its faces 1.5 % less than the one before.
    steps = (
        ((0.1055, 0.03539, 0.1697), (0.001411, 0.001073, 0.001777)),
        ((0.1975, 0.1215, 0.2613), (0.001518, 0.001201, 0.001849)),
        ((0.3681, 0.2965, 0.4354), (0.001597, 0.001359, 0.001879)),
    )
    for age, similarity in steps:
        changed = {AGE: figure(*age), SIMILARITY: figure(*similarity)}
        decision = decide(evaluation(**changed), CHAMPION, GATES)
        assert not decision.promote
        assert not any(gate.closes for gate in decision.gates)


def test_a_gain_without_a_margin_pays_for_no_loss():
    strict = GATES.model_copy(update={"max_age_mae_increase_years": 0.0})
    gain = {SIMILARITY: figure(0.0, -0.001, 0.001)}
    assert decide(evaluation(**gain), CHAMPION, strict).promote
    lost = {SIMILARITY: figure(-0.0006, -0.001, -0.0001)}
    assert not decide(evaluation(**lost), CHAMPION, strict).promote


def test_kid_is_judged_on_inception_where_it_was_measured():
    own = decide(evaluation(), CHAMPION, GATES).gates[5]
    assert own.figure == "against_champion/kid_own_features"
    assert "Inception's are absent" in own.reason
    measured = {"against_champion/kid": figure(0.0, -0.001, 0.001)}
    kid = decide(evaluation(**measured), CHAMPION, GATES).gates[5]
    assert kid.figure == "against_champion/kid"
    assert "by Inception" in kid.reason


@pytest.mark.parametrize("champion", [CHAMPION, None])
@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (SAMPLING | {"level": 0.05}, "level 0.05, below 0.95"),
        (SAMPLING | {"num_bootstrap": 10}, "10 resamples, fewer than 200"),
        (None, "does not say how its intervals were made: run evaluate again"),
    ],
)
def test_weak_intervals_are_no_evidence(champion, sampling, says):
    weak = evaluation(champion) | {"sampling": sampling}
    decision = decide(weak, champion, GATES)
    assert not decision.promote
    assert says in decision.reasons[0]
    assert bool(decision.gates) == (champion is not None)


def test_a_handful_of_faces_is_no_evidence():
    few = figure(-1.0, -1.4, -0.6) | {"n": 29}
    decision = decide_with(AGE, few)
    assert not decision.promote
    assert "rests on 29 faces, fewer than 30" in decision.reasons[-1]
    first = decide(evaluation(None, **{AGE_MAE: figure(7.0) | {"n": 3}}), None, GATES)
    assert not first.promote
    assert any("rests on 3 faces" in reason for reason in first.reasons)


def test_drawn_faces_judge_no_champion_of_photographs_nor_the_reverse():
    for synthetic, trained_on in ((True, "workspace corpus"), (False, "synthetic")):
        champion = Compared("1", "a" * 64, trained_on)
        decision = decide(evaluation() | {"synthetic": synthetic}, champion, GATES)
        assert not decision.promote
        assert f"was trained on {trained_on}" in decision.reasons[0]
        assert decide(evaluation() | {"synthetic": not synthetic}, champion, GATES).promote


def test_a_champion_that_does_not_say_what_it_holds_can_be_compared_with():
    assert decide(evaluation(), Compared("1"), GATES).promote
