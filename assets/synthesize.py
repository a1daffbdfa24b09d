"""The synthetic corpus (nothing to do where the photographs are real)."""

from assets.running import stage_asset

synthetic_corpus = stage_asset(
    "synthetic_corpus",
    "synthesize",
    deps=[],
    group="corpus",
    cost="About 20 ms a face and core at 128 px.",
)
