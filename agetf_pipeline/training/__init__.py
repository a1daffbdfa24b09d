"""AgeTransformer training: dataset, loop, checkpoints."""
