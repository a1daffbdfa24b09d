"""Every check of `agetf verify`: what is wrong when it fires, how bad that is, and what to do."""

from agetf_pipeline.upkeep.findings import Severity
from agetf_pipeline.upkeep.verify_checks_kept import KEPT_CHECKS, Check

AREAS = ("tables", "links", "files", "models", "state")
"""What can be verified for itself (`--only`), in this order."""


_RUN = "Run the stage {stage} again: it makes it anew."
_RESTORE = "Restore the file from a backup, or run ingest without it."

CHECKS: dict[str, Check] = {
    "tables/unreadable": Check(
        "error",
        "A table cannot be opened, or a page of it does not match its checksum.",
        "Delete the file and run the stage that writes it.",
    ),
    "tables/schema": Check(
        "error",
        "A table has other columns or types than its schema.",
        "It was made by another version: delete it and run the stage that writes it.",
    ),
    "tables/order": Check(
        "error",
        "Rows are not in the order of the table's key.",
        "Something else wrote it: delete it and run the stage that writes it.",
    ),
    "tables/duplicate_key": Check(
        "error",
        "Two rows of a table have the same key.",
        "Something else wrote it: delete it and run the stage that writes it.",
    ),
    "tables/partition": Check(
        "error",
        "Rows say that they belong to another partition than the file's.",
        "A file was copied or renamed: delete it and run the stage that writes it.",
    ),
    "tables/value": Check(
        "error",
        "A value is none that the column may hold: an unknown word, no finite number, out of "
        "range, or null where the row's status says that there is one.",
        "Something else wrote it: delete the file and run the stage that writes it.",
    ),
    "tables/distribution": Check(
        "error",
        "A distribution over ages is not 101 numbers that sum to 1.",
        "Something else wrote it: delete the file and run the stage that writes it.",
    ),
    "tables/unknown": Check(
        "warning",
        "A file among the tables belongs to no table.",
        "No stage reads it: move it elsewhere.",
    ),
    "tables/badly_named": Check(
        "error",
        "A table's file is named as no partition can be.",
        "Rename it to its partition (ffhq_aging, caf/<shard>), or move it elsewhere.",
    ),
    "links/corpus_missing": Check(
        "error",
        "The folder of a partition's photographs is gone.",
        "Put the folder back or mount it; to give the shard up for good, see docs/shards.md.",
    ),
    "links/original_missing": Check(
        "error", "The table `images` names a photograph that is not there.", _RESTORE
    ),
    "links/original_altered": Check(
        "error",
        "A photograph is no longer the bytes that its image_id is the hash of.",
        _RESTORE + " An altered file is another image.",
    ),
    "links/face_missing": Check(
        "error", "A face that was cut out, or copied, is not there.", "Run ingest: it makes it."
    ),
    "links/face_altered": Check(
        "error",
        "A face that was cut out, or copied, is not what ingest wrote.",
        "Run ingest: it cuts the face again.",
    ),
    "links/face_size": Check(
        "error",
        "A face has another size than its row says, or is no picture.",
        "Delete it and run ingest: it cuts the face again.",
    ),
    "links/taken_and_refused": Check(
        "error", "A file is in `images` and in `quarantine`.", "Run ingest for the partition."
    ),
    "links/duplicate_of": Check(
        "error",
        "A file was refused as a duplicate of one that no table holds.",
        "Run ingest for the partition: it takes the file in.",
    ),
    "links/not_ingested": Check(
        "warning",
        "A file of the corpus is neither in `images` nor in `quarantine`.",
        "It may have arrived since: run ingest for the partition.",
    ),
    "links/list_missing": Check(
        "error",
        "The manifest of a shard, or the labels that its images have, are gone.",
        "Restore the file from a backup: who is on a photograph, and how old, is known from it.",
    ),
    "links/list_unreadable": Check(
        "error",
        "The manifest of a shard, or the table of labels, cannot be read.",
        "Restore the file from a backup, or correct it: ingest refuses the partition.",
    ),
    "links/list_differs": Check(
        "warning",
        "The corpus's list says something else than the tables: it changed since ingest read it.",
        "Run ingest for the partition; restore the list if it is the wrong one.",
    ),
    "links/list_contradicted": Check(
        "error",
        "The table `images` says something else than the corpus's list, and is not what ingest "
        "wrote.",
        "Run ingest for the partition: it writes the table anew.",
    ),
    "links/refused_file_gone": Check(
        "note",
        "A file in quarantine is no longer there.",
        "Nothing is lost: ingest drops the row when it next runs.",
    ),
    "links/two_partitions": Check(
        "error",
        "An image is in two partitions; `image_id` is to be unique over all.",
        "Run ingest for the later partition: the first in order keeps the image.",
    ),
    "links/no_images": Check(
        "error",
        "A table has a partition that the table `images` lacks.",
        "Run ingest for the partition, or delete its tables: docs/shards.md says which.",
    ),
    "links/table_missing": Check(
        "error", "A stage ran for a partition, and its table is gone.", _RUN
    ),
    "links/gap": Check("error", "A table lacks the row of an image.", _RUN),
    "links/stale_row": Check(
        "error",
        "A table has a row of an image that is not there.",
        "Run the stage {stage}: it drops the row.",
    ),
    "links/other_expert": Check(
        "warning",
        "Predictions are of an expert that the configuration does not name.",
        "Give the --config that they were made with, or run the stage predict: it drops them.",
    ),
    "links/not_run": Check(
        "note", "A stage has not been run for a partition.", "Run the stage {stage}, if it is to."
    ),
    "links/other_copy": Check(
        "error",
        "A check after enhancement was made on another copy than the one that is there.",
        "Run the stage recheck.",
    ),
    "links/token_grid": Check(
        "error",
        "The features of an image are missing, damaged or of another shape.",
        "Delete the file and run the stage caption with caption.token_grid=true.",
    ),
    "links/embeddings_index": Check(
        "warning",
        "The embeddings mapped into memory are damaged, or made of another table.",
        "Nothing: they are made again when they are next opened. Or delete the file.",
    ),
    "links/not_kept": Check(
        "error",
        "The training manifest has an image that the keep-list does not keep.",
        "Run the stage assemble.",
    ),
    "links/gone_partition": Check(
        "warning",
        "The training manifest has images of a shard that was given up: no table has it.",
        "Run the stages relabel and assemble: they make theirs anew without it.",
    ),
    "links/manifest_path": Check(
        "error",
        "The training manifest names another file than the tables of the image.",
        "Run the stage assemble.",
    ),
    "links/not_assembled": Check(
        "warning",
        "The training manifest has no image of a partition whose keep-list keeps some.",
        "Run the stage assemble.",
    ),
    "links/identity_in_two_splits": Check(
        "error",
        "Images of one person are in two splits.",
        "Run the stage assemble; what was measured on these splits flatters.",
    ),
    "links/forgotten": Check(
        "error",
        "An image that was to be forgotten is in a table.",
        "Run `agetf forget` for it again.",
    ),
    "files/forgotten": Check(
        "error",
        "A file of an image that was to be forgotten, a copy of it, or a text that names it, is "
        "there.",
        "Run `agetf forget` for it again, or delete the file.",
    ),
    "files/orphan": Check(
        "error",
        "A face, an enhanced picture, its sidecar or image features that no row knows.",
        "Run the stage {stage}, which removes it, or delete it.",
    ),
    "files/stale_partition": Check(
        "warning",
        "Files of a partition that no longer exists.",
        "Delete them, or put the partition back and run ingest.",
    ),
    "files/foreign": Check(
        "note", "A file that no stage made lies among derived ones.", "No stage reads it."
    ),
    "files/temporary": Check(
        "warning",
        "An interrupted write left a temporary file or folder.",
        "Run the stage again: whoever next writes in that folder removes it. Or delete it.",
    ),
    "files/unfinished": Check(
        "note",
        "An interrupted stage left what it had finished.",
        "Run the stage again: it goes on there.",
    ),
    "files/symlink": Check(
        "warning",
        "A symbolic link lies among derived files; no stage makes one.",
        "Replace it by the file itself, or delete it.",
    ),
    "files/not_a_file": Check(
        "warning", "A pipe, socket or device lies among the files.", "Delete it."
    ),
    "files/unreadable": Check(
        "error", "A file or folder cannot be read.", "Grant the right to read it."
    ),
    "files/not_writable": Check(
        "warning",
        "A folder, a lock or a ledger cannot be written, so that the next run fails.",
        "Grant the right to write it, or run as the user whom it belongs to.",
    ),
    "files/report": Check(
        "error",
        "The report of a stage cannot be read.",
        "Delete it and run the stage {stage}: it runs once more.",
    ),
    "files/output_missing": Check(
        "error", "A file that a stage wrote is gone.", "Run the stage {stage}: it makes it again."
    ),
    "files/output_changed": Check(
        "warning",
        "A file changed since the stage that wrote it ran.",
        "The next run of the stage {stage} makes it again.",
    ),
    "files/of_gone_partition": Check(
        "warning",
        "A file that a stage wrote for a shard is gone, and so is the shard.",
        "Run the stage {stage}: it is due since the shard was given up.",
    ),
    "files/since_forgetting": Check(
        "note",
        "An output is gone or changed, and something was forgotten since the stage ran.",
        "The next run of the stage {stage} makes it again.",
    ),
    **KEPT_CHECKS,
}
"""Every check by its name, `<area>/<check>`. Those of an enhanced shard stand in
`enhance.findings`, and are called `links/enhanced_<kind>`."""


def check_of(name: str) -> Check:
    """Return a check; those of an enhanced shard are the audit's own."""
    from agetf_pipeline.enhance.findings import ERRORS, NOTES

    kind = name.removeprefix("links/enhanced_")
    if kind == name:
        return CHECKS[name]
    remedy = ERRORS.get(kind) or NOTES[kind]
    severity: Severity = "error" if kind in ERRORS else "note"
    return Check(severity, f"See `{kind}` in docs/enhancement_audit.md.", _sentence(remedy))


NOT_LINKS = ("table_damaged", "orphan", "temporary", "foreign_file", "unfinished")
"""Kinds of the audit that other checks of `agetf verify` say already."""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
