"""A corpus's own list, manifest or labels, against what the tables of ingest say of its images."""

from collections.abc import Iterable, Mapping
from typing import Any

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.work import report_path
from agetf_pipeline.core.workspace import is_caf
from agetf_pipeline.data.corpora import source_folder
from agetf_pipeline.data.corpus import Corpus, list_name, read_lists
from agetf_pipeline.data.listing import Found, escape_name
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.stages.ingest import STAGE, add_labels
from agetf_pipeline.upkeep.verify_forgotten import is_older_than_forgetting
from agetf_pipeline.upkeep.verify_reports import output_hash
from agetf_pipeline.upkeep.verify_survey import Survey

_FIRST = "image_number"
LISTED: tuple[str, ...] = tuple(IMAGES.schema.names[IMAGES.schema.names.index(_FIRST) :])
"""Columns of table `images` that hold what the corpus itself says."""
_SAID = {"subject": "subject", "true_age_years": "age", _FIRST: "number"}
_SAME = 1e-3  # tables hold such numbers with 32 bits
_BY_THE_LIST = ("not_listed", "bad_age")
"""Reasons of quarantine that the list alone gives for a file that is there."""
_COPIED = "name_not_utf8"


def verify_lists(survey: Survey, partition: str, files: list[Found]) -> None:
    """Check that a partition's list can be read, and says what the tables say.

    No finding quotes it: names of people stay where they are.

    Args:
        survey: The verification.
        partition: Of which table `images` is there.
        files: Those of its folder.
    """
    columns = ["image_id", "path", "flags", *LISTED]
    images = survey.rows(IMAGES, partition, columns)
    if images is None:
        return
    rows = images.to_dicts()
    folder = source_folder(survey.config, survey.workspace, partition)
    path = folder / list_name(partition)
    if not path.is_file():
        listed = [row for row in rows if is_caf(partition) or _has_label(row)]
        if listed:
            expected = f"the list of {len(listed)} photographs"
            survey.add("links/list_missing", path, expected, "nothing")
        return
    try:
        corpus = read_lists(folder, partition, files)
    except (DataError, OSError, ValueError) as error:
        found = str(error).partition("; found")[2].strip(": ") or str(error)
        survey.add("links/list_unreadable", path, "a list that ingest can read", found)
        return
    survey.count("links", lists=1)
    base = survey.workspace.relative(folder)
    here = {escape_name(f"{base}/{found.relative}"): found.relative for found in files}
    check = "links/list_contradicted" if _is_damaged(survey, partition) else "links/list_differs"
    for row, said in _now(rows, corpus, partition, here):
        differing = _differing(row, said)
        if differing:
            survey.add(check, path, f"what table images says of {row['path']}",
                       f"another {' and another '.join(differing)}", row["image_id"])  # fmt: skip
    taken = {row["path"] if _COPIED in row["flags"] else escape_name(row["path"]) for row in rows}
    _verify_refusals(survey, partition, corpus, base, here, taken)


def _now(
    rows: Iterable[dict[str, Any]], corpus: Corpus, partition: str, here: Mapping[str, str]
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return each row with what ingest would put into it now; None: it would not take the file."""
    found, said = [], []
    for row in rows:
        relative = here.get(row["path"] if _COPIED in row["flags"] else escape_name(row["path"]))
        if relative is None:
            continue  # the photograph is gone, which is said of it
        found.append(row)
        new = {"partition": partition, "_relative": relative}
        said.append(dict.fromkeys(LISTED) | new if relative not in corpus.refused else None)
    add_labels([row for row in said if row is not None], corpus)
    return list(zip(found, said, strict=True))


def _differing(row: Mapping[str, Any], said: Mapping[str, Any] | None) -> list[str]:
    """Return what a list says otherwise than a row of the table, in words."""
    if said is None:
        return ["opinion of whether it can be used"]
    names = [name for name in LISTED if not _equal(row[name], said[name])]
    return [_SAID.get(name, str(name).replace("_", " ")) for name in names]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(one - other) <= _SAME
    return one == other


def _has_label(row: Mapping[str, Any]) -> bool:
    return any(row[name] is not None for name in LISTED if name != _FIRST)


def _is_damaged(survey: Survey, partition: str) -> bool:
    """Whether table `images` is not what ingest wrote: then the list is likely to be right."""
    report = report_path(survey.workspace, STAGE, partition)
    try:
        expected = read_json(report)["_output_hashes"]["images"]
    except (OSError, ValueError, KeyError, TypeError):  # said by the files
        return False
    found = output_hash(survey.workspace, survey.path_of(IMAGES, partition))
    return found != expected and not is_older_than_forgetting(survey, report)


def _verify_refusals(
    survey: Survey, partition: str, corpus: Corpus, base: str, here: Mapping[str, str],
    taken: set[str],
) -> None:  # fmt: skip
    """Check what the list alone turns away: files that it lacks, and rows without a file."""
    refused = survey.rows(QUARANTINE, partition, ["path", "reason"])
    if refused is None:
        return
    known = dict(refused.iter_rows())
    for path, reason in known.items():
        now = corpus.refused.get(here.get(path, ""), ("",))[0]
        if reason in _BY_THE_LIST and path in here and now != reason:
            survey.add("links/list_differs", path, f"a list by which it is {reason}", "another")
    for listed, *_ in corpus.absent:
        path = escape_name(f"{base}/{listed}")
        if path not in known and path not in taken:
            expected = "a row in quarantine, or the file"
            survey.add("links/list_differs", path, expected, "a row of the list alone")
