"""What the guards measure in the pixels of an original and its enhanced copy."""

from dataclasses import dataclass

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.enhance.guards import same_size_sharpness_ratio
from agetf_pipeline.enhance.identity import FacePair, IdentityModel, face_pair, similarities

NO_MODEL = "no identity model is configured (recheck.identity_weights)"
UNIFORM = "the original is of one colour"


@dataclass(frozen=True)
class PixelMeasures:
    """What two pictures gave.

    Attributes:
        sharpness_ratio: See `same_size_sharpness_ratio`.
        identity_similarity: Cosine of the two faces, -1 to 1; None without a model.
        identity_alignment: How the faces were cut out: eyes, window or whole.
        problem: Why there is none of this: a file that could not be read.
    """

    sharpness_ratio: float | None = None
    identity_similarity: float | None = None
    identity_alignment: str | None = None
    problem: str | None = None


def measure_pictures(
    workspace: Workspace, rows: list[dict], model: IdentityModel | None
) -> dict[str, PixelMeasures]:
    """Measure pictures and their copies; a file that cannot be read costs its own row alone.

    Args:
        workspace: The workspace.
        rows: `image_id`, `face_path` of the original, `enhanced_path` of the copy.
        model: The identity model, if there is one. All faces go through it together.

    Returns:
        What was measured, by image_id.
    """
    ratios: dict[str, float | None] = {}
    pairs: dict[str, FacePair] = {}
    problems: dict[str, str] = {}
    for row in rows:
        name = row["image_id"]
        try:
            original = read_rgb(workspace.resolve(row["face_path"]))
            enhanced = read_rgb(workspace.resolve(row["enhanced_path"]))
        except DataError as error:
            problems[name] = str(error)
            continue
        ratios[name] = same_size_sharpness_ratio(original, enhanced)
        if model is not None:
            pairs[name] = face_pair(original, enhanced, model)
    cosines: dict[str, float] = {}
    if model is not None:
        cosines = dict(zip(pairs, similarities(pairs.values(), model), strict=True))
    measured = {
        name: PixelMeasures(
            ratio, cosines.get(name), pairs[name].alignment if name in pairs else None
        )
        for name, ratio in ratios.items()
    }
    return measured | {name: PixelMeasures(problem=why) for name, why in problems.items()}
