"""Whether there is anything to evaluate again, and of which training run."""

from dataclasses import dataclass

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace


@dataclass(frozen=True)
class Reevaluation:
    """What an evaluation now would be of.

    Attributes:
        run_name: The training run to evaluate; None where there is nothing to do.
        reason: Why, in a sentence.
    """

    run_name: str | None
    reason: str


def plan_reevaluation(config: PipelineConfig, workspace: Workspace) -> Reevaluation:
    """Return what to evaluate: the configured run beside the champion, or the champion alone.

    The champion renders the same faces for the same judges as the configured run. Where that run
    is not trained yet, the run is evaluated that the champion came from.

    Raises:
        StageError: The registry does not answer.
        WeightsError: The version that the champion was compared with is gone.
    """
    from agetf_pipeline.registry.reference import run_of_champion
    from agetf_pipeline.stages.evaluate import is_current, model_path

    name = config.train.run_name
    if not model_path(config, workspace).is_file():
        champion = run_of_champion(config, workspace)
        if champion is None:
            return Reevaluation(None, f"Run '{name}' is not trained yet, and there is no champion.")
        train = config.train.model_copy(update={"run_name": champion})
        config, name = config.model_copy(update={"train": train}), champion
        if not model_path(config, workspace).is_file():
            why = f"the champion's run '{champion}' has no weights in this workspace"
            return Reevaluation(None, f"The configured run is not trained yet, and {why}.")
    if is_current(config, workspace):
        what = "model, champion, judges, tables and settings are those of the last evaluation"
        return Reevaluation(None, f"Nothing changed for run '{name}': {what}.")
    return Reevaluation(name, f"Run '{name}' was not measured yet with what is there now.")
