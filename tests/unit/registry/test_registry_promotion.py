from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.registry.promotion import AGE_MAE, AGE_SPEARMAN, IDENTITY, decide

BASE = {AGE_MAE: 8.0, AGE_SPEARMAN: 0.9, IDENTITY: 0.7}


def test_first_version_is_promoted():
    assert decide(BASE, None, GatesConfig()).promote


def test_equal_and_better_versions_are_promoted():
    assert decide(BASE, BASE, GatesConfig()).promote
    better = {AGE_MAE: 7.0, AGE_SPEARMAN: 0.95, IDENTITY: 0.75}
    assert decide(better, BASE, GatesConfig()).promote


def test_one_worse_figure_stops_promotion_and_is_named():
    for name, worse in ((AGE_MAE, 8.5), (AGE_SPEARMAN, 0.85), (IDENTITY, 0.6)):
        decision = decide(BASE | {name: worse}, BASE, GatesConfig())
        assert not decision.promote
        assert sum("is worse than" in reason for reason in decision.reasons) == 1


def test_tolerance_lets_a_small_loss_pass():
    gates = GatesConfig(max_age_mae_increase_years=0.5)
    assert decide(BASE | {AGE_MAE: 8.4}, BASE, gates).promote
    assert not decide(BASE | {AGE_MAE: 8.6}, BASE, gates).promote


def test_missing_figures():
    without = {name: value for name, value in BASE.items() if name != IDENTITY}
    assert not decide(without, BASE, GatesConfig()).promote
    assert decide(BASE, without, GatesConfig()).promote
    assert decide(without, without, GatesConfig()).promote


def test_other_evaluators_are_not_comparable():
    decision = decide(BASE | {AGE_MAE: 1.0}, BASE, GatesConfig(), same_judges=False)
    assert not decision.promote
    assert "not comparable" in decision.reasons[0]
