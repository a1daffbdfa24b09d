"""The readable photographs of both corpora, and the quarantine."""

import dagster as dg

from assets.checking import picture_check, table_check
from assets.running import stage_asset
from resources.pipeline import PipelineResource

_COST = "Decodes every new file once; CPU only."
_MAX_ROWS = 100

ffhq_images = stage_asset(
    "ffhq_images",
    "ingest",
    what="A row per readable FFHQ-Aging photograph (table `images`: size, format, crowd "
    "labels), and a row with the reason per file that was not taken (table `quarantine`).",
    deps=["synthetic_corpus"],
    group="corpus",
    cost=_COST,
    over="ffhq",
    kinds={"python", "parquet"},
)
caf_images = stage_asset(
    "caf_images",
    "ingest",
    what="A row per readable photograph of each CAF shard (table `images`: subject, age, "
    "size), and a row with the reason per file that was not taken (table `quarantine`).",
    deps=["synthetic_corpus"],
    group="corpus",
    cost=_COST,
    over="shards",
    kinds={"python", "parquet"},
)
ffhq_images_check = table_check("ffhq_images", "images", over="ffhq")
caf_images_check = table_check("caf_images", "images", over="caf")
ffhq_quarantine_check = table_check("ffhq_images", "quarantine", over="ffhq")
caf_quarantine_check = table_check("caf_images", "quarantine", over="caf")
ffhq_originals_check = picture_check(
    "ffhq_images", "originals", "the FFHQ-Aging photographs as they came", over="ffhq"
)
caf_originals_check = picture_check(
    "caf_images", "originals", "the CAF photographs as they came", over="caf"
)
ffhq_faces_check = picture_check("ffhq_images", "faces", "the faces that stages read", over="ffhq")
caf_faces_check = picture_check("caf_images", "faces", "the faces that stages read", over="caf")


@dg.asset_check(
    asset=caf_images,
    description="Whether every CAF shard on disk is complete and every known one is still there.",
)
def caf_shards_on_disk(pipeline: PipelineResource) -> dg.AssetCheckResult:
    """Warn of shards that are incomplete, broken, badly named or gone; they stop no other."""
    from agetf_pipeline.data.shards import scan_shards

    shards = scan_shards(*pipeline.load())
    wrong = [shard for shard in shards if shard.state != "complete"]
    records = [
        dg.TableRecord(
            {
                "shard": shard.name,
                "state": shard.state.replace("_", " "),
                "reason": shard.reason,
                "what to do": shard.remedy,
            }
        )
        for shard in wrong[:_MAX_ROWS]
    ]
    schema = dg.TableSchema(
        columns=[dg.TableColumn(name) for name in ("shard", "state", "reason", "what to do")]
    )
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "num_complete": len(shards) - len(wrong),
            "num_not_complete": len(wrong),
            "shards": dg.MetadataValue.table(records=records, schema=schema),
        },
    )
