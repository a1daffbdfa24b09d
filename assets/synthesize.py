"""The synthetic corpus (nothing to do where the photographs are real)."""

from assets.running import stage_asset

synthetic_corpus = stage_asset(
    "synthetic_corpus",
    "synthesize",
    what="Parametric faces with known age, identity and attributes, in the layouts of "
    "FFHQ-Aging and CAF, so that everything runs without a photograph. Nothing where "
    "`synthesize.enabled` is false: then `data/raw/` holds your photographs.",
    deps=[],
    group="corpus",
    cost="About 20 ms a face and core at 128 px.",
)
