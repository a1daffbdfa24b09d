"""Faces that the evaluators are trained on: drawn for this alone, or the labelled photographs."""

import numpy as np
import polars as pl

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.evaluation.training import LabelledFaces

FIRST_SEED = 1 << 40
"""Seeds of the people drawn for the evaluators start here, far above those of any corpus."""


def draw_faces(config: TrainEvaluatorsConfig) -> LabelledFaces:
    """Draw people of known ages who are in no corpus.

    Args:
        config: Number of people, ages of each, side of the images.

    Returns:
        One face per person and age; ages are spread evenly over 0 to 100 for each person. Every
        face is another photograph: light, pose, place and clothes say nothing about the person.
    """
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity
    from agetf_pipeline.synthetic.population import rephotograph

    rng = np.random.default_rng(config.seed)
    num_ages = config.num_ages_per_identity
    faces, ages, people = [], [], []
    for person in track(range(config.num_identities), "drawing faces for the evaluators"):
        seed = FIRST_SEED + (config.seed * 1_000_003 + person) * 1_000
        identity = draw_identity(seed)
        # One age in each of `num_ages` equal spans: every person is seen young and old.
        drawn_ages = (np.arange(num_ages) + rng.random(num_ages)) * (100 / num_ages)
        for k, age in enumerate(drawn_ages):
            photographed = rephotograph(identity, seed + 1 + k)
            faces.append(draw_face(photographed, float(age), config.input_px))
            ages.append(age)
            people.append(person)
    return LabelledFaces(
        np.stack(faces),
        np.array(ages, np.float32),
        np.array(people, np.int64),
        "synthetic",
        drawn_version(config),
    )


def drawn_version(config: TrainEvaluatorsConfig) -> str:
    """Return the identity of the faces that `draw_faces` draws, without drawing them."""
    return fingerprint(
        config.model_dump(
            mode="json",
            include={"num_identities", "num_ages_per_identity", "input_px", "seed"},
        ),
        "1",
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
