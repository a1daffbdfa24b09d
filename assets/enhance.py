"""CAF faces, colourised and super-resolved where they need it."""

from assets.checking import picture_check, table_check
from assets.running import stage_asset

caf_enhanced = stage_asset(
    "caf_enhanced",
    "enhance",
    what="CAF faces, coloured and enlarged where they need it, as image files with a sidecar "
    "each that links them to their originals (table `enhanced`).",
    deps=["caf_images", "enhancers"],
    group="enhancement",
    cost="One pass of two networks over every new face that needs them.",
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
caf_enhanced_check = table_check("caf_enhanced", "enhanced", over="caf")
caf_enhanced_pictures_check = picture_check(
    "caf_enhanced", "enhanced", "the enhanced faces", over="caf"
)
