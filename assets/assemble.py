"""What training reads."""

from assets.checking import table_check
from assets.running import stage_asset

training_manifest = stage_asset(
    "training_manifest",
    "assemble",
    deps=["keep_list", "caf_enhanced_ages", "ffhq_captions", "caf_captions"],
    group="training",
    cost="Seconds; no network runs.",
    kinds={"python", "parquet"},
)
training_manifest_check = table_check("training_manifest", "training_manifest")
