"""What training reads."""

from assets.checking import picture_check, table_check
from assets.running import stage_asset

training_manifest = stage_asset(
    "training_manifest",
    "assemble",
    what="What training reads: a row per usable face with its label, variance, weight, "
    "enhanced copy, caption, and a split that keeps each person in one part (table "
    "`training_manifest`).",
    deps=["keep_list", "caf_enhanced_ages", "ffhq_captions", "caf_captions"],
    group="training",
    cost="Seconds; no network runs.",
    kinds={"python", "parquet"},
)
training_manifest_check = table_check("training_manifest", "training_manifest")
training_pictures_check = picture_check(
    "training_manifest", "manifest", "the pictures that training reads"
)
