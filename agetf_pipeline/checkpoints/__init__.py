"""Published checkpoints as data: what there is, where it comes from, and whether a file is it."""

from agetf_pipeline.checkpoints.verifying import require_verified

__all__ = ["require_verified"]
