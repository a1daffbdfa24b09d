"""Ingest: read a corpus safely into the tables `images` and `quarantine`.

Every file of the partition's folder ends in one of the two, and so does every row of a CAF
manifest. Only new or changed content is decoded. `image_id` is the sha256 of a file's bytes, so one
content has one row: of several files with the same bytes the one is kept of which the corpus
says most, of equals the first by path; an earlier partition keeps its own. Files with the
same bytes that are listed as different people or ages are not: none of one shard, and none of a
later shard.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from agetf_pipeline.config.ingest import SourceConfig
from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import canonical_json, hash_bytes, hash_file
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.claims import (
    Claim,
    claim_of,
    claims_kept,
    conflict_between,
    conflicts_within,
    says_more,
)
from agetf_pipeline.data.corpora import require_partitions, source_folder
from agetf_pipeline.data.corpus import (
    Corpus,
    explain_labels,
    hash_files,
    list_name,
    read_corpus,
)
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.examinations import Examiner
from agetf_pipeline.data.ffhq_aging import image_number_of
from agetf_pipeline.data.forgotten import read_forgotten
from agetf_pipeline.data.listing import Found, escape_name, is_utf8
from agetf_pipeline.data.probe import has_extension_of
from agetf_pipeline.data.quarantine import (
    FORGOTTEN,
    HARMLESS,
    describe_counts,
    quarantine_frame,
    quarantine_row,
)
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import list_partitions, table_path, to_frame, write_table
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "ingest"
CODE_VERSION = "3"
_UNUSED = (
    "This list names a person or an age where that one has none: it is not used. Put it there."
)


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Read one partition (`ffhq_aging` or `caf/<shard>`).

    Raises:
        DataError: The labels or the manifest cannot be used.
        StageError: There is no corpus at all, or too many files cannot be used. In the second case
            both tables are written first.
    """
    partitions = require_partitions(config, workspace)
    folder = source_folder(config, workspace, partition)
    source = config.ingest.caf if is_caf(partition) else config.ingest.ffhq_aging
    forgotten = read_forgotten(workspace)
    corpus = read_corpus(
        folder, source, partition, config.ingest.limits.max_bytes, forgotten,
        workspace.relative(folder),
    )  # fmt: skip
    corpus.messages += _explain_forgotten(workspace, partition, partitions)
    elsewhere = _held_before(workspace, partition, partitions, set(corpus.ids.values()))
    examiner = Examiner(workspace, config.ingest, source, partition)
    settings = {
        "folder": workspace.relative(folder),
        "examination": examiner.version(),
        "aligned": source.aligned,
        "max_failed_fraction": config.ingest.max_failed_fraction,
        "max_decode_s": config.ingest.max_decode_s,
    }
    inputs = {
        "files": hash_files(corpus),
        "elsewhere": hash_bytes(canonical_json(elsewhere).encode()),
    }
    if names := sorted(
        escape_name(name)
        for name, why in [*corpus.refused.items(), *((a[0], a[1:]) for a in corpus.absent)]
        if why[0] == FORGOTTEN
    ):
        inputs[FORGOTTEN] = hash_bytes(canonical_json(names).encode())
    if (lists := folder / list_name(partition)).is_file():
        inputs[lists.name] = hash_file(lists)

    def work() -> StageReport:
        # The corpus was read before the stage's lock was held.
        if read_forgotten(workspace).digest != forgotten.digest:
            raise StageError(
                f"Expected nobody to be forgotten while {partition} was read; found that somebody "
                "was. Run ingest again: it will leave them out."
            )
        return _ingest(config, workspace, partition, folder, examiner, corpus, elsewhere)

    return run_once(
        workspace,
        STAGE,
        settings,
        CODE_VERSION,
        inputs,
        work,
        partition,
    )


def _held_before(
    workspace: Workspace, partition: str, partitions: list[str], ids: set[str]
) -> dict[str, tuple[str, str | None, float | None]]:
    """Return the images that an earlier partition holds: id to path, subject and age.

    `image_id` is the key of every table over all partitions. The first partition in order keeps the
    image, however often and in whatever order the partitions are read.
    """
    earlier = partitions[: partitions.index(partition)] if partition in partitions else []
    paths = [table_path(workspace, IMAGES, name) for name in earlier]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return {}
    # In one scan: file by file, a thousand shards cost five minutes more (measured).
    scan = pl.scan_parquet(paths, extra_columns="ignore")
    scan = scan.select("image_id", "path", "subject", "true_age_years")
    rows = scan.filter(pl.col("image_id").is_in(list(ids))).collect()
    return {image_id: tuple(said) for image_id, *said in sorted(rows.iter_rows())}


def _ingest(
    config: PipelineConfig,
    workspace: Workspace,
    partition: str,
    folder: Path,
    examiner: Examiner,
    corpus: Corpus,
    elsewhere: dict[str, tuple[str, str | None, float | None]],
) -> StageReport:
    base = workspace.relative(folder)
    candidates = [f for f in corpus.files if f.relative not in corpus.refused]
    contents = {corpus.ids[f.relative]: f.path for f in reversed(candidates)}
    examined = examiner.examine(contents)
    corpus.refused.update(conflicts_within(corpus, candidates, base))
    candidates = [f for f in candidates if f.relative not in corpus.refused]
    held = claims_kept(corpus, candidates, base) | {
        image_id: Claim(escape_name(path), subject, age)
        for image_id, (path, subject, age) in elsewhere.items()
    }
    rows: list[dict[str, Any]] = []
    quarantined: list[dict[str, Any]] = []
    num_contradicting = num_unused = 0
    for found in corpus.files:
        path = f"{base}/{found.relative}"
        image_id = corpus.ids.get(found.relative)
        why = corpus.refused.get(found.relative)
        duplicate_of = None
        if why is None:
            assert image_id is not None, "a file neither hashed nor refused"
            finding = examined[image_id]
            if finding["reason"] is not None:
                why = finding["reason"], finding["detail"]
            elif held[image_id].path != escape_name(path):
                duplicate_of = held[image_id].path
                why = "duplicate", f"The same bytes as {duplicate_of}, which was kept."
                claim = claim_of(corpus, found, base)
                if says_more(claim, held[image_id]):
                    num_unused += 1
                    why = "duplicate", f"{why[1]} {_UNUSED}"
                if differing := conflict_between(claim, held[image_id]):
                    num_contradicting += 1
                    why = (
                        "conflicting_rows",
                        f"The same bytes as {duplicate_of}, which was kept; there it is listed "
                        f"with {differing}. Correct one of the two lists.",
                    )
            else:
                rows.append(_image_row(workspace, examiner, corpus, found, path, finding))
                continue
        quarantined.append(
            quarantine_row(
                escape_name(path), partition, *why, image_id, found.num_bytes, duplicate_of
            )
        )
    absent = {listed: (reason, detail) for listed, reason, detail in corpus.absent}
    quarantined += [
        quarantine_row(escape_name(f"{base}/{listed}"), partition, *why)
        for listed, why in absent.items()
    ]
    examiner.remove_orphans({row["face_path"] for row in rows})
    add_labels(rows, corpus)
    images, quarantine = to_frame(rows, IMAGES), quarantine_frame(quarantined)
    num_inputs = len(corpus.files) + len(absent)
    assert num_inputs == images.height + quarantine.height, "an input is in neither table"
    outputs = {
        "images": write_table(workspace, IMAGES, partition, images),
        "quarantine": write_table(workspace, QUARANTINE, partition, quarantine),
        "quarantine_csv": workspace.stats / "quarantine" / f"{partition}.csv",
    }
    write_text(outputs["quarantine_csv"], for_spreadsheets(quarantine.sort("path")))
    if examiner.faces.is_dir() and any(examiner.faces.iterdir()):
        outputs["faces"] = examiner.faces
    reasons = dict(sorted(Counter(quarantine["reason"].to_list()).items()))
    _check_failed(config, partition, num_inputs, reasons, outputs["quarantine_csv"])
    return StageReport(
        STAGE,
        counts={
            "inputs": num_inputs,
            "images": images.height,
            "quarantined": quarantine.height,
            **{f"quarantined_{reason}": count for reason, count in reasons.items()},
        },
        outputs={name: workspace.relative(path) for name, path in outputs.items()},
        messages=corpus.messages
        + _explain_people(rows, num_contradicting, num_unused)
        + explain_labels([row["image_number"] for row in rows], corpus)
        + _explain_images(images, examiner.source)
        + _explain_quarantine(reasons, workspace.relative(outputs["quarantine_csv"])),
    )


def _image_row(
    workspace: Workspace,
    examiner: Examiner,
    corpus: Corpus,
    found: Found,
    path: str,
    finding: dict[str, Any],
) -> dict[str, Any]:
    """Return a row of `images`, without what the corpus says of the image."""
    image_id = finding["image_id"]
    flags = list(finding["flags"])
    if not has_extension_of(found.relative, finding["format"]):
        flags.append("wrong_extension")
    if found.relative in corpus.by_other_name:
        flags.append("listed_by_other_name")
    face_path = path
    if not is_utf8(path):
        # No table can hold the name, so the stages read a copy under another one.
        flags.append("name_not_utf8")
        path = escape_name(path)
    if finding["face_sha256"] is not None:
        face_path = workspace.relative(examiner.face_path(image_id))
    elif "name_not_utf8" in flags:
        face_path = workspace.relative(examiner.copy(image_id, found.path, finding["format"]))
    return {
        **dict.fromkeys(IMAGES.schema.names),
        **{name: finding[name] for name in finding if name in IMAGES.schema.names},
        "partition": examiner.partition,
        "path": path,
        "face_path": face_path,
        "raw_name": escape_name(found.path.name),
        "num_bytes": found.num_bytes,
        "flags": sorted(flags),
        "_relative": found.relative,
    }


def add_labels(rows: list[dict[str, Any]], corpus: Corpus) -> None:
    """Put what the corpus says of each image into its row, by `_relative`, which goes."""
    numbers = [image_number_of(row["_relative"]) for row in rows]
    shared = {number for number, count in Counter(numbers).items() if count > 1} - {None}
    for row, number in zip(rows, numbers, strict=True):
        relative = row.pop("_relative")
        if relative in corpus.rows:
            listed = corpus.rows[relative]
            row.update(
                subject=listed.subject,
                true_age_years=listed.true_age_years,
                age_group=listed.age_group,
            )
        elif row["partition"] == FFHQ_PARTITION:
            row["image_number"] = number
            label = (corpus.labels or {}).get(-1 if number is None else number)
            # Two different pictures of one number: which one the crowd saw is not known.
            if label is not None and number not in shared:
                row.update(dataclasses.asdict(label))


def _check_failed(
    config: PipelineConfig, partition: str, num_inputs: int, reasons: dict[str, int], csv: Path
) -> None:
    """Stop where too large a share of the inputs is in quarantine, but for harmless reasons."""
    failed = {reason: count for reason, count in reasons.items() if reason not in HARMLESS}
    num_failed, limit = sum(failed.values()), config.ingest.max_failed_fraction
    if num_failed > limit * num_inputs:
        raise StageError(
            f"Expected at most {limit:.0%} of the {num_inputs} files of {partition} in quarantine; "
            f"found {num_failed}: {describe_counts(failed)}. {csv} says why, file by file. Repair "
            "or remove them, or raise ingest.max_failed_fraction."
        )


def _explain_images(images: pl.DataFrame, source: SourceConfig) -> list[str]:
    counts = Counter(images["flags"].explode().drop_nulls().to_list())
    sentences = {
        "wrong_extension": "whose name does not fit their format (the content counts)",
        "name_not_utf8": "whose name is not UTF-8 (tables show it escaped, the stages read a copy)",
        "listed_by_other_name": "listed in the manifest by another spelling of their name",
        "exif_rotated": "stored turned (read upright, as their EXIF says)",
        "converted_16_bit": "with 16 bits a channel (read with 8)",
        "converted_cmyk": "in CMYK (read as RGB, without their colour profile)",
        "several_faces": "with several faces (the most prominent one was cut out, which need not "
        "be the subject)",
        "eyes_not_found": "with a face whose eyes were not found (cut out without turning)",
        "low_res_face": "with a face so small that its crop is enlarged more than twice",
    }
    messages = [f"Images {text}: {counts[f]}." for f, text in sentences.items() if counts[f]]
    if source.aligned and counts["not_square"]:
        messages.append(
            f"Images that are not square, and will be squeezed: {counts['not_square']}. If they "
            "are whole photographs rather than faces, set aligned: false for this corpus."
        )
    return messages


def _explain_quarantine(reasons: dict[str, int], csv: str) -> list[str]:
    if not reasons:
        return []
    return [f"In quarantine: {describe_counts(reasons)}. {csv} says why, file by file."]


def _explain_people(
    rows: list[dict[str, Any]], num_contradicting: int, num_unused: int
) -> list[str]:
    messages = []
    if num_unused:
        messages.append(
            "Duplicates that are listed with a person or an age, where the picture that was kept "
            f"has none: {num_unused}. What their rows say is not used: put it into the list of the "
            "kept one, or take that away. Until then a split does not know the person."
        )
    if num_contradicting:
        messages.append(
            "Images that an earlier shard has too, with another subject or age: "
            f"{num_contradicting}. They were not taken; one of the two lists is wrong."
        )
    spellings = {row["subject"] for row in rows if row["subject"] is not None}
    num_alike = len(spellings) - len({spelling.casefold() for spelling in spellings})
    if num_alike:
        messages.append(
            f"Subjects that differ from another one in capitals alone: {num_alike}. They count as "
            "different people, and always go into the same split; spell one person one way."
        )
    return messages


def _explain_forgotten(workspace: Workspace, partition: str, partitions: list[str]) -> list[str]:
    forgotten = set(list_partitions(workspace, IMAGES)) - {*partitions, partition}
    return [
        f"The tables still hold {name}, whose folder is gone: put it back, or delete "
        f"{workspace.relative(table_path(workspace, IMAGES, name))}."
        for name in sorted(forgotten)
    ]
