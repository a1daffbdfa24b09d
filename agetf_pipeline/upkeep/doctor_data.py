"""The raw photographs: which corpora are there, which shards are whole, whether labels read."""

from collections import Counter
from collections.abc import Iterator

from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.upkeep.doctor import Item, Patient, ill, said

_NUM_NAMED = 3


def corpora_check(patient: Patient) -> Iterator[Item]:
    """Whether there is anything to work on."""
    if patient.config is None or patient.workspace is None:
        return
    from agetf_pipeline.data.corpora import caf_folder, discover_partitions, ffhq_folder

    config, workspace = patient.config, patient.workspace
    try:
        found = discover_partitions(config, workspace)
    except AgetfError as error:
        yield ill(
            "error", "data/corpora", "corpora", *said(error, "folders that can be read"),
            "Correct the folder, and ask again.",
        )  # fmt: skip
        return
    if found:
        yield Item("corpora", f"{len(found)} partitions: {_some(found)}")
    elif config.synthesize.enabled:
        yield Item("corpora", "none yet: a synthetic one is drawn by the first run")
    else:
        yield ill(
            "error", "data/corpora", "corpora", "FFHQ-Aging or CAF photographs",
            f"none in {ffhq_folder(config, workspace)} or {caf_folder(config, workspace)}",
            "Put them there, set ingest.<corpus>.path, or set synthesize.enabled=true.",
        )  # fmt: skip


def shards_check(patient: Patient) -> Iterator[Item]:
    """Whether the CAF shards are whole; nothing is written."""
    if patient.config is None or patient.workspace is None:
        return
    from agetf_pipeline.data.corpora import caf_folder
    from agetf_pipeline.data.shards import look_at_shards

    folder = caf_folder(patient.config, patient.workspace)
    if not folder.is_dir():
        return
    shards = look_at_shards(patient.config, patient.workspace)
    counts = Counter(shard.state for shard in shards)
    if shards:
        spelled = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        yield Item("CAF shards", spelled)
    for state in sorted(counts.keys() - {"complete", "removed"}):
        severity = "error" if state == "broken" else "warning"
        unfit = [shard for shard in shards if shard.state == state]
        for shard in unfit[:_NUM_NAMED]:
            yield ill(
                severity, f"data/shard_{state}", f"{folder.name}/{shard.name}", "a complete shard",
                shard.reason, shard.remedy,
            )  # fmt: skip
        if len(unfit) > _NUM_NAMED:
            yield ill(
                severity, f"data/shard_{state}", f"{folder.name}: more", "complete shards",
                f"{len(unfit) - _NUM_NAMED} more that are {state}",
                "Mend those above; then ask again for the next ones.",
            )  # fmt: skip


def labels_check(patient: Patient) -> Iterator[Item]:
    """Whether FFHQ-Aging's labels can be read."""
    if patient.config is None or patient.workspace is None:
        return
    from agetf_pipeline.data.corpora import ffhq_folder
    from agetf_pipeline.data.ffhq_aging import LABELS_NAME, read_labels

    path = ffhq_folder(patient.config, patient.workspace) / LABELS_NAME
    if not path.is_file():
        return
    try:
        yield Item("FFHQ-Aging labels", f"{len(read_labels(path))} in {path.name}")
    except AgetfError as error:
        yield ill(
            "error", "data/labels", str(path), *said(error, "labels that can be read"),
            "Correct the line, or fetch the file again; `agetf check-labels` says more.",
        )  # fmt: skip


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{', '.join(names[:_NUM_NAMED])}{more}"


CHECKS = (corpora_check, shards_check, labels_check)
