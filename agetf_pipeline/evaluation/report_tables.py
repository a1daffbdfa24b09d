"""The report's tables: which figures stand in them, under which words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.evaluation.comparison import CHAMPION, PREFIX
from agetf_pipeline.evaluation.identity import GAPS_YEARS, gap_name
from agetf_pipeline.evaluation.scores import GROUPED


@dataclass(frozen=True)
class Table:
    """A table of figures: a heading per column, and per row a label and figures."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[Measure]]]


IDENTITY_ROWS = {
    "Similarity of renderings to their source": "renderings/id_similarity",
    "Similarity of real pairs of one person": "real/id_similarity_genuine",
    "Similarity of real pairs of two people": "real/id_similarity_impostor",
    "Verification threshold": "real/verification_threshold",
    "Renderings verified": "renderings/verification_rate",
    "Real pairs of one person verified": "real/genuine_rate",
}
QUALITY_ROWS = {
    "PSNR": "renderings/source_psnr",
    "SSIM": "renderings/source_ssim",
    "LPIPS": "renderings/source_lpips",
    "Sharpness over the source's": "renderings/sharpness_ratio",
    "Renderings in which a face is found": "renderings/face_found_rate",
    "Real faces in which a face is found": "real/face_found_rate",
    "FID": "renderings/fid",
    "KID": "renderings/kid",
    "PSNR against the true drawing at the target age": "renderings/truth_psnr",
    "SSIM against the true drawing at the target age": "renderings/truth_ssim",
    "PSNR of the unchanged source, likewise": "renderings/truth_psnr_unchanged",
    "SSIM of the unchanged source, likewise": "renderings/truth_ssim_unchanged",
}
LABEL_ROWS = {
    "Midpoints' MAE minus the mixture's": "labels/mae_gain_years",
    "Mixture's MAE over the best expert's": "labels/mae_ratio_to_best_expert",
    "Intervals that hold the true age": "labels/interval_coverage",
    "Width of the intervals": "labels/interval_width_years",
    "Mixture within 5 years": "labels/cs5/mixture",
    "Midpoints within 5 years": "labels/cs5/group_midpoints",
    "Earth mover's distance of the mixture's ages to the true ones": "labels/age_emd_years/mixture",
    "Of the midpoints": "labels/age_emd_years/group_midpoints",
}
_AGE_ROWS = {
    "Spearman, target against read age": "age_spearman",
    "Spearman, mean over faces": "age_spearman_per_face",
    "MAE": "age_mae_years",
    "Bias": "age_bias_years",
    "Slope": "age_slope",
    "Neighbouring anchors in the wrong order": "order_violation_rate",
}
_FIGURES = {
    "age_mae_years": "age MAE",
    "mixture_age_mae_years": "age MAE, by the mixture",
    "order_violation_rate": "anchors in the wrong order",
    "id_similarity": "similarity to the source",
    "verification_rate": "verified",
    "face_found_rate": "face found",
    "attributes_kept": "attributes kept",
    "source_psnr": "PSNR at the own age",
    "source_ssim": "SSIM at the own age",
    "source_lpips": "LPIPS at the own age",
    "sharpness_ratio": "sharpness over the source's",
    "sharpness_error": "its logarithm's distance from 0",
    "kid": "KID against real faces",
    "kid_own_features": "the same by own features",
}
_ENHANCEMENT_COLUMNS = ("enhanced", "bicubic", "gain")
_NOT_MEASURED = Measure(None, reason="not measured")


def listed(caption: str, measures: Mapping[str, Measure], rows: Mapping[str, str]) -> Table:
    """Return a table of single figures, those that were asked for."""
    present = [(label, [measures[name]]) for label, name in rows.items() if name in measures]
    return Table(caption, ("value",), present)


def ages(measures: Mapping[str, Measure]) -> Table:
    """Return how the ages read follow the target, by both readers."""
    rows = [
        (label, _cells(measures, [f"renderings/{reader}{name}" for reader in ("", "mixture_")]))
        for label, name in _AGE_ROWS.items()
    ]
    own = ("real/age_estimator_mae_years", "real/mixture_mae_years")
    rows.append(("Reader's own MAE on real held-out faces", _cells(measures, own)))
    return Table("Over all anchors", ("by the outside estimator", "by the mixture"), rows)


def anchors(measures: Mapping[str, Measure], anchors_years: Sequence[float]) -> list[Table]:
    """Return the figures of each anchor, a table per reader."""
    tables = []
    for reader, words in (("", "by the outside estimator"), ("mixture_", "by the mixture")):
        names = [f"{reader}{name}" for name in
                 ("age_read_years", "age_bias_years", "age_sd_years", "age_mae_years")]  # fmt: skip
        columns = ("mean read", "bias", "SD", "MAE")
        if not reader:
            names.append("age_emd_years")
            columns = (*columns, "distance to real faces")
        if f"renderings/{names[0]}/{anchors_years[0]:g}" not in measures:
            continue
        rows = [
            (f"{anchor:g} years", _cells(measures, [f"renderings/{n}/{anchor:g}" for n in names]))
            for anchor in anchors_years
        ]
        tables.append(Table(f"By anchor, read {words}", columns, rows))
    return tables


def gaps(measures: Mapping[str, Measure]) -> Table:
    """Return verification rates by gap of age, renderings beside real people."""
    names = ("renderings/verification_rate", "real/genuine_rate")
    rows = [
        (f"{gap_name(gap)} years", _cells(measures, [f"{n}/gap_{gap_name(gap)}" for n in names]))
        for gap in GAPS_YEARS
    ]
    return Table("Verified, by gap of age", ("renderings", "real people"), rows)


def distances(measures: Mapping[str, Measure]) -> Table:
    """Return KID of each age group: Inception's, and by features of a network of this project."""
    columns = {"renderings/kid": "KID", "renderings/kid_own_features": "KID by own features"}
    groups = [
        group for group in AGE_GROUPS if any(f"{name}/{group}" in measures for name in columns)
    ]
    # A column of which nobody measured anything says so once, in the table above.
    names = [name for name in columns if any(f"{name}/{group}" in measures for group in groups)]
    rows = [(group, _cells(measures, [f"{name}/{group}" for name in names])) for group in groups]
    return Table(
        "Distance to real faces, by target age group", tuple(columns[n] for n in names), rows
    )


def attributes(measures: Mapping[str, Measure]) -> Table:
    """Return the share of renderings that keep each attribute, beside what its reader is worth."""
    prefix = "renderings/attributes_kept"
    told = Measure(None, reason="of each attribute below")
    rows = [("all together", [measures.get(prefix, _NOT_MEASURED), told])]
    for name in measures:
        attribute = name.removeprefix(f"{prefix}/")
        if attribute != name and "=" not in attribute:
            accuracy = f"real/attribute_accuracy/{attribute}"
            rows.append((attribute.replace("_", " "), _cells(measures, [name, accuracy])))
    return Table("Attributes", ("kept", "reader's own accuracy"), rows)


def worst(measures: Mapping[str, Measure]) -> Table:
    """Return the worst cell of each figure, beside the mean over all faces."""
    rows = []
    for name in GROUPED:
        item = measures.get(f"worst_cell/{name}")
        if item is not None:
            label = f"{_FIGURES[name]}: {item.note}"
            rows.append((label, [item, measures.get(f"renderings/{name}", _NOT_MEASURED)]))
    return Table("Worst cells", ("in the cell", "over all faces"), rows)


def cells(measures: Mapping[str, Measure], prefix: str = "renderings") -> list[Table]:
    """Return a table per axis: a row per cell, a column per figure that has cells."""
    by_axis: dict[str, dict[str, None]] = {}
    names: dict[str, None] = {}
    for key in measures:
        start, _, cell = key.rpartition("/")
        if key.startswith(f"{prefix}/") and "=" in cell:
            by_axis.setdefault(cell.partition("=")[0], {})[cell] = None
            names[start.removeprefix(f"{prefix}/")] = None
    return [
        Table(
            f"By {axis.replace('_', ' ')}",
            tuple(_FIGURES[name] for name in names),
            [
                (cell.partition("=")[2], _cells(measures, [f"{prefix}/{n}/{cell}" for n in names]))
                for cell in found
            ],
        )
        for axis, found in by_axis.items()
    ]


def champion(measures: Mapping[str, Measure]) -> Table:
    """Return every figure of this model, of the champion, and their difference."""
    parts = ("renderings", CHAMPION, PREFIX)
    alone = Measure(None, reason="measured by group")
    rows = [
        (label, [measures.get(f"{part}/{name}", alone) for part in parts])
        for name, label in _FIGURES.items()
        if f"{PREFIX}/{name}" in measures
    ]
    return Table("Same faces, same judges", ("this model", "champion", "difference"), rows)


def champion_groups(measures: Mapping[str, Measure]) -> Table:
    """Return the differences in each cell: age error and similarity."""
    names = ("age_mae_years", "id_similarity")
    found = dict.fromkeys(
        key.rpartition("/")[2] for key in measures if key.startswith(f"{PREFIX}/") and "=" in key
    )
    rows = [
        (cell, _cells(measures, [f"{PREFIX}/{name}/{cell}" for name in names])) for cell in found
    ]
    return Table("Differences by group", tuple(_FIGURES[name] for name in names), rows)


def labels(measures: Mapping[str, Measure]) -> Table:
    """Return the error of every way to label."""
    prefix = "labels/mae_years/"
    rows = [
        (name.removeprefix(prefix).removeprefix("expert_").replace("_", " "), [item])
        for name, item in measures.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    ]
    return Table("Error of labels, MAE in years", ("MAE",), rows)


def label_groups(measures: Mapping[str, Measure]) -> Table:
    """Return the error of midpoints and mixture in each true age group, and by gender."""
    names = ("labels/mae_years/group_midpoints", "labels/mae_years/mixture")
    genders = [
        name.rpartition("/")[2] for name in measures if name.startswith(f"{names[1]}/gender=")
    ]
    rows = [
        (group.removeprefix("gender="), _cells(measures, [f"{name}/{group}" for name in names]))
        for group in (*AGE_GROUPS, *genders)
    ]
    return Table("By true age group and gender, MAE in years", ("group midpoints", "mixture"), rows)


def enhancement(measures: Mapping[str, Measure]) -> list[Table]:
    """Return PSNR, SSIM and LPIPS by degradation."""
    tables = []
    for metric, caption in (("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("lpips", "LPIPS")):
        prefix = f"enhancement/{metric}/enhanced"
        rows = []
        for name in sorted(name for name in measures if name.startswith(prefix)):
            kind = name.removeprefix(prefix)
            names = [f"enhancement/{metric}/{column}{kind}" for column in _ENHANCEMENT_COLUMNS]
            label = kind.removeprefix("/").replace("_", " ") or "all"
            rows.append((label, _cells(measures, names)))
        tables.append(Table(caption, _ENHANCEMENT_COLUMNS, rows))
    return tables


def _cells(measures: Mapping[str, Measure], names: Sequence[str]) -> list[Measure]:
    return [measures.get(name, _NOT_MEASURED) for name in names]
