"""Ingest: read a corpus safely into the tables `images` and `quarantine`.

Every file of the partition's folder ends in one of the two, and so does every row of a CAF
manifest. Only new or changed content is decoded. `image_id` is the sha256 of a file's bytes, so one
content has one row: of several files with the same bytes the one is kept of which the corpus
says most, of equals the first by path; an earlier partition keeps its own. Files with the
same bytes that are listed as different people or ages are not: none of one shard, and none of a
later shard.
"""

from collections import Counter
from pathlib import Path

from agetf_pipeline.config.ingest import SourceConfig
from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.hashing import canonical_json, hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.claims import settle_claims
from agetf_pipeline.data.corpora import require_partitions, source_folder
from agetf_pipeline.data.corpus import (
    add_labels,
    forgotten_names,
    hash_elsewhere,
    hash_listing,
    list_name,
    read_corpus,
)
from agetf_pipeline.data.corpus_lists import explain_labels
from agetf_pipeline.data.corpus_store import CorpusStore, open_store
from agetf_pipeline.data.corpus_tables import (
    Fates,
    count_alike,
    decide,
    want_candidates,
    write_images,
    write_quarantine,
)
from agetf_pipeline.data.examinations import Examiner
from agetf_pipeline.data.forgotten import read_forgotten
from agetf_pipeline.data.holdings import find_elsewhere
from agetf_pipeline.data.quarantine import FORGOTTEN, HARMLESS, describe_counts
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import list_partitions, table_path
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "ingest"
CODE_VERSION = "3"

__all__ = ["CODE_VERSION", "STAGE", "add_labels", "run"]


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
    with open_store(workspace.state / "ingest", folder) as store:
        read_corpus(
            store, folder, source, partition, config.ingest.limits.max_bytes, forgotten,
            workspace.relative(folder),
        )  # fmt: skip
        store.messages += _explain_forgotten(workspace, partition, partitions)
        earlier = partitions[: partitions.index(partition)] if partition in partitions else []
        find_elsewhere(workspace, earlier, store)
        examiner = Examiner(workspace, config.ingest, source, partition)
        settings = {
            "folder": workspace.relative(folder),
            "examination": examiner.version(),
            "aligned": source.aligned,
            "max_failed_fraction": config.ingest.max_failed_fraction,
            "max_decode_s": config.ingest.max_decode_s,
        }
        inputs = {"files": hash_listing(store), "elsewhere": hash_elsewhere(store)}
        if names := forgotten_names(store):
            inputs[FORGOTTEN] = hash_bytes(canonical_json(names).encode())
        if (lists := folder / list_name(partition)).is_file():
            inputs[lists.name] = hash_file(lists)

        def work() -> StageReport:
            # The corpus was read before the stage's lock was held.
            if read_forgotten(workspace).digest != forgotten.digest:
                raise StageError(
                    f"Expected nobody to be forgotten while {partition} was read; found that "
                    "somebody was. Run ingest again: it will leave them out."
                )
            return _ingest(config, workspace, folder, examiner, store)

        return run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work, partition)


def _ingest(
    config: PipelineConfig,
    workspace: Workspace,
    folder: Path,
    examiner: Examiner,
    store: CorpusStore,
) -> StageReport:
    partition, base, fates = examiner.partition, workspace.relative(folder), Fates()
    want_candidates(store)
    examiner.examine_all(store)
    settle_claims(store, base)
    decide(store, examiner, base, fates)
    csv = workspace.stats / "quarantine" / f"{partition}.csv"
    outputs = {
        "images": write_images(store, examiner, base, fates),
        "quarantine": write_quarantine(store, workspace, partition, base, csv, fates),
        "quarantine_csv": csv,
    }
    examiner.remove_orphans(store)
    if examiner.has_faces():
        outputs["faces"] = examiner.faces
    _check_failed(config, partition, fates, csv)
    has_labels = not is_caf(partition) and (folder / list_name(partition)).is_file()
    return StageReport(
        STAGE,
        counts={
            "inputs": fates.num_inputs,
            "images": fates.num_images,
            "quarantined": fates.num_inputs - fates.num_images,
            **{f"quarantined_{reason}": count for reason, count in fates.reasons.items()},
        },
        outputs={name: workspace.relative(path) for name, path in outputs.items()},
        messages=store.messages
        + _explain_people(fates, count_alike(store))
        + explain_labels(store, has_labels)
        + _explain_images(fates.flags, examiner.source)
        + _explain_quarantine(fates.reasons, workspace.relative(csv)),
    )


def _check_failed(config: PipelineConfig, partition: str, fates: Fates, csv: Path) -> None:
    """Stop where too large a share of the inputs is in quarantine, but for harmless reasons."""
    failed = {reason: n for reason, n in fates.reasons.items() if reason not in HARMLESS}
    num_failed, limit = sum(failed.values()), config.ingest.max_failed_fraction
    if num_failed > limit * fates.num_inputs:
        raise StageError(
            f"Expected at most {limit:.0%} of the {fates.num_inputs} files of {partition} in "
            f"quarantine; found {num_failed}: {describe_counts(failed)}. {csv} says why, file by "
            "file. Repair or remove them, or raise ingest.max_failed_fraction."
        )


def _explain_images(counts: Counter[str], source: SourceConfig) -> list[str]:
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


def _explain_people(fates: Fates, num_alike: int) -> list[str]:
    messages = []
    if fates.num_unused:
        messages.append(
            "Duplicates that are listed with a person or an age, where the picture that was kept "
            f"has none: {fates.num_unused}. What their rows say is not used: put it into the list "
            "of the kept one, or take that away. Until then a split does not know the person."
        )
    if fates.num_contradicting:
        messages.append(
            "Images that an earlier shard has too, with another subject or age: "
            f"{fates.num_contradicting}. They were not taken; one of the two lists is wrong."
        )
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
