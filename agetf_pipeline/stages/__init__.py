"""The stages, in pipeline order: each a function `run(config, workspace, ...) -> StageReport`."""
