"""Faces that the evaluators are trained on: drawn for this alone, or the labelled photographs."""

from itertools import pairwise

import numpy as np
import polars as pl

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.evaluation.attributes import ATTRIBUTES, attributes_of
from agetf_pipeline.evaluation.drawn_people import FIRST_SEED, draw_people, traits_of
from agetf_pipeline.evaluation.training import LabelledFaces

__all__ = ["FIRST_SEED", "draw_faces", "drawn_version", "labelled_rows", "load_labelled_faces"]

_WORTH_A_PROCESS = 400
"""Fewer pictures are drawn sooner than another process starts."""


def draw_faces(config: TrainEvaluatorsConfig) -> LabelledFaces:
    """Draw people of known ages who are in no corpus.

    Args:
        config: Number of people, ages of each, side of the images.

    Returns:
        One face per person and age; ages are spread evenly over 0 to 100 for each person. Every
        face is another photograph, some of them old and worn; place and clothes say nothing about
        the person.
    """
    num_people, num_ages = config.num_identities, config.num_ages_per_identity
    halves = 2 if num_people * num_ages >= _WORTH_A_PROCESS else 1
    edges = [num_people * half // halves for half in range(halves + 1)]
    calls = [
        (first, last, num_ages, config.input_px, config.seed) for first, last in pairwise(edges)
    ]
    drawn = run_in_processes(draw_people, calls) if halves > 1 else [draw_people(*calls[0])]
    identities = [identity for part in drawn for identity in part.identities]
    truths = [attributes_of(identity) for identity in identities]
    return LabelledFaces(
        np.concatenate([part.faces for part in drawn]),
        np.concatenate([part.ages_years for part in drawn]).astype(np.float32),
        np.concatenate([part.people for part in drawn]),
        "synthetic",
        drawn_version(config),
        np.stack([traits_of(identity) for identity in identities]),
        {name: np.array([truth[name] for truth in truths]) for name in ATTRIBUTES},
    )


def drawn_version(config: TrainEvaluatorsConfig) -> str:
    """Return the identity of the faces that `draw_faces` draws, without drawing them."""
    return fingerprint(
        config.model_dump(
            mode="json",
            include={"num_identities", "num_ages_per_identity", "input_px", "seed"},
        ),
        "2",
        {},
    )


def labelled_rows(manifest: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that may train evaluators: of the train split, aged by their corpus.

    Args:
        manifest: The training manifest.
    """
    return manifest.filter(
        (pl.col("split") == "train") & (pl.col("label_source") == "corpus")
    ).sort("image_id")


def load_labelled_faces(
    workspace: Workspace, rows: pl.DataFrame, config: TrainEvaluatorsConfig
) -> LabelledFaces:
    """Read the labelled photographs of the train split.

    Args:
        workspace: The workspace.
        rows: From `labelled_rows`.
        config: Side of the images.
    """
    from agetf_pipeline.data.images import load_faces

    names = rows["identity"].to_numpy()
    people = np.unique(names, return_inverse=True)[1] if len(names) else np.empty(0)
    return LabelledFaces(
        load_faces(workspace, rows["face_path"], config.input_px),
        rows["age_years"].to_numpy().astype(np.float32),
        people.astype(np.int64),
        "workspace corpus",
        fingerprint({}, "1", {"rows": rows.select("image_id", "age_years").write_ndjson()}),
    )
