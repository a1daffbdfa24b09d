"""Train: fit the AgeTransformer to the training manifest, guided by the distilled networks.

Writes models/age_transformer/<run_name>/weights.safetensors (the average over the run's end) and,
in outputs/experiments/<run_name>/, the resolved config, metrics, curves and a grid of samples. The
work stands in `training.run`, where `torchrun -m agetf_pipeline.training` finds it too.
"""

from agetf_pipeline.training.run import (
    CODE_VERSION,
    STAGE,
    anchors_path,
    checkpoints_path,
    run,
    weights_path,
)

__all__ = ["CODE_VERSION", "STAGE", "anchors_path", "checkpoints_path", "run", "weights_path"]
