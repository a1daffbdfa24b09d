"""What the stage's report says of early stopping."""

from typing import Any

from agetf_pipeline.config.experts import ExpertConfig


def add_validation(
    name: str,
    expert: ExpertConfig,
    card: dict[str, Any],
    counts: dict[str, int],
    figures: dict[str, float | None],
    messages: list[str],
) -> None:
    """Add what a training's validation measured to a report; nothing where it had none.

    Args:
        name: The expert's name.
        expert: Its settings.
        card: The card of its weights.
        counts: Counts of the report, added to.
        figures: Figures of the report, added to.
        messages: Messages of the report, added to.
    """
    validation = card.get("validation")
    if validation is None:
        return
    counts[f"num_train_images_{name}"] = card["num_train_images"]
    counts[f"num_validation_images_{name}"] = validation["num_images"]
    counts[f"best_step_{name}"] = validation["best_step"]
    counts[f"last_step_{name}"] = validation["last_step"]
    figures[f"validation_mae_years_{name}"] = validation["mae_years"]
    end = (
        f"stopped after {validation['last_step']} of {expert.num_steps} steps: {expert.patience} "
        "validations in a row brought no gain"
        if validation["stopped"] == "early"
        else f"went through all {validation['last_step']} steps"
    )
    messages.append(
        f"{name}: the weights after {validation['best_step']} steps are kept. Their error on "
        f"{validation['num_images']} images of {card['num_validation_subjects']} training subjects "
        f"held out for this choice is {validation['mae_years']:.2f} years (the least of several, "
        f"so a little too good). The training {end}."
    )
