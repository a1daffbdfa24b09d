"""The checks of `agetf verify` of what is kept beside the corpora: models, and the state."""

from dataclasses import dataclass

from agetf_pipeline.upkeep.findings import Severity


@dataclass(frozen=True)
class Check:
    """One kind of finding: its severity, what is wrong, and the remedy (`{stage}` is filled in)."""

    severity: Severity
    wrong: str
    remedy: str


KEPT_CHECKS: dict[str, Check] = {
    "models/changed": Check(
        "error",
        "Weights or a calibration changed since the stage that wrote them ran.",
        "Run the stage {stage}: it makes them again; or restore the file.",
    ),
    "models/unreadable": Check(
        "error",
        "A weights file is truncated, longer than its header says, or no weights file.",
        "Restore it, or delete it and run the stage that trains it.",
    ),
    "models/empty": Check(
        "error",
        "A weights file holds no parameter.",
        "Restore it, or delete it and run the stage that trains it.",
    ),
    "models/not_finite": Check(
        "error",
        "Weights are NaN or infinite.",
        "Restore the file, or delete it and run the stage that trains it.",
    ),
    "models/card": Check(
        "error",
        "What a weights file says of itself cannot be read.",
        "Restore it, or delete it and run the stage that trains it.",
    ),
    "models/json": Check(
        "error",
        "A JSON file of a model or a run is damaged, or holds a number that is not finite.",
        "Restore it, or run the stage that writes it.",
    ),
    "models/calibration": Check(
        "error",
        "The mixture's calibration is damaged, or was changed by hand.",
        "Run the stage relabel: it fits it again.",
    ),
    "models/checkpoint": Check(
        "error",
        "A checkpoint of training lacks a file, or one is not what its checksum says.",
        "Delete the checkpoint's folder: training goes on from the one before.",
    ),
    "models/program": Check(
        "error",
        "An exported program is damaged.",
        "Write it anew with `agetf model export`.",
    ),
    "models/published": Check(
        "error",
        "Published weights are not the published bytes, or not those that were let in.",
        "Run `agetf models verify`, which says what to do for each file.",
    ),
    "models/configured_missing": Check(
        "error",
        "The configuration names weights that are not there.",
        "Put the file there (`agetf models fetch`), or correct the configuration.",
    ),
    "models/release": Check(
        "error",
        "A file of a release is missing, changed, or not listed in its checksums.",
        "Run the stage release: it writes the folder anew.",
    ),
    "state/sqlite": Check(
        "error",
        "A SQLite file is damaged.",
        "Stop what uses it and restore it from a backup; docs/operations.md says how.",
    ),
    "state/registry": Check(
        "error",
        "The registry of models cannot be read.",
        "See that the file is MLflow's, of this version; restore it from a backup.",
    ),
    "state/registered_missing": Check(
        "error",
        "The files of a registered version of a model are gone.",
        "Restore the folder from a backup; `agetf registry rollback` names another champion.",
    ),
    "state/registered_changed": Check(
        "error",
        "The weights of a registered version are not those that were registered.",
        "Restore the folder from a backup; `agetf registry rollback` names another champion.",
    ),
    "state/mixture_differs": Check(
        "warning",
        "A registered mixture has another identity than its version says: its files changed, or "
        "the code that labels did since.",
        "Run the stage register to have the mixture of today; restore the files if they changed.",
    ),
    "state/ledger": Check(
        "error",
        "A record of the workspace's state is damaged.",
        "Delete it: it is made again (files are then read or copied once more).",
    ),
    "state/drawn_corpus": Check(
        "error",
        "The mark of a drawn corpus is damaged or gone: it cannot be told from photographs.",
        "Restore it from a backup; or move data/raw and data/truth away: the stage synthesize "
        "draws the same again.",
    ),
    "state/release_key": Check(
        "error",
        "The key of the persons' hashes in releases is damaged.",
        "Restore it from a backup; or delete it: persons then get other hashes than before.",
    ),
    "state/forgotten_register": Check(
        "error",
        "The register of what was forgotten is damaged.",
        "Restore it from a backup: without it, forgotten people come back.",
    ),
    "state/forgetting_unfinished": Check(
        "warning",
        "A request to forget was interrupted.",
        "Run `agetf forget` without anything to forget: it goes on there.",
    ),
    "state/at_work": Check(
        "warning",
        "A stage is at work; what it writes was not verified.",
        "Wait for it to end, and verify again.",
    ),
    "state/not_verified": Check(
        "error",
        "A check itself failed, so that this part was not verified.",
        "Look at the message; verify again once it is settled.",
    ),
}
"""Those of `models` and `state` by their names."""
