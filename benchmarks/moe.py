"""The mixture of experts on synthetic faces: is it better than its parts, and does it know it?

    python -m benchmarks.moe [--seeds 0 1 2] [--json stats/bench_moe.json] [--plots FOLDER]

Four real (tiny) experts learn from disjoint people with noisy labels and a bias of their own: one
learns from mostly shuffled labels, and one is silent on a random fifth of the images. The mixture
is calibrated on other people and tested on others again. Exits 1 where a statement does not hold.
Every figure is of synthetic faces.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.data.ages import AGE_GROUPS

SIZE_PX = 64
AGES_PER_PERSON = 2
NUM_TRAIN, NUM_CALIBRATION, NUM_TEST = 900, 2000, 3000
BATCH_SIZE, READ_BATCH = 24, 50
LABEL_NOISE = (2.0, 0.08)
"""Standard deviation of the labels' noise: years, and years per year of age."""
LEVEL, OVERALL, LEAST_IN_GROUP, GROUP_SIZE = 0.9, (0.87, 0.93), 0.8, 100


@dataclass(frozen=True)
class Expert:
    """How one expert is trained, and what is wrong with what it learns from.

    Attributes:
        num_steps: Length of its training, in batches of 24.
        lr: Learning rate.
        bias: From true ages to the ages that it is taught, years.
        shuffled: Share of its labels that belong to other faces.
        missing: Share of the images that it is silent on.
    """

    num_steps: int
    lr: float
    bias: Callable[[np.ndarray], np.ndarray]
    shuffled: float = 0.0
    missing: float = 0.0


EXPERTS: dict[str, Expert] = {
    "janus": Expert(500, 2e-3, lambda age: age + 4.0),
    "mivolo": Expert(500, 8e-4, lambda age: 0.85 * age + 3.0),
    "resnet50": Expert(400, 3e-3, lambda age: 1.1 * age - 3.0, missing=0.2),
    "vgg16": Expert(200, 3e-3, lambda age: age, shuffled=0.85),
}
BAD = "vgg16"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=Path("stats/bench_moe.json"))
    parser.add_argument("--plots", type=Path, default=None, help="folder for tables and plots")
    arguments = parser.parse_args()
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        readings = _read_all(arguments.seeds, Path(folder))
        results = [
            _evaluate(seed, readings[seed], Path(folder), arguments.plots)
            for seed in arguments.seeds
        ]
    statements = [statement for result in results for statement in result["statements"]]
    seconds = round(time.monotonic() - begin_s)
    write_json(arguments.json, {"synthetic": True, "wall_clock_s": seconds, "seeds": results})
    failed = [statement["text"] for statement in statements if not statement["holds"]]
    print(f"\n{len(statements) - len(failed)} of {len(statements)} statements hold; {seconds} s; "
          f"{arguments.json}")  # fmt: skip
    if failed:
        sys.exit(1)


def _read_all(seeds: list[int], folder: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Draw the faces, train every expert of every seed, and return what each reads."""
    parts = [("test", NUM_TEST), ("calibration", NUM_CALIBRATION)]
    run_in_processes(
        _save_part, [(folder, part, num, seed) for seed in seeds for part, num in parts]
    )
    # The longest first, so that the cores end together.
    calls = [(name, seed, folder) for name in EXPERTS for seed in seeds]
    found = run_in_processes(_train_and_read, calls)
    readings: dict[int, dict[str, dict[str, Any]]] = {seed: {} for seed in seeds}
    for (name, seed, _), result in zip(calls, found, strict=True):
        readings[seed][name] = result
    return readings


def _draw_part(part: str, num_faces: int, seed: int) -> dict[str, np.ndarray]:
    """Draw people that are in no other part, two pictures each, ages evenly over the ten groups."""
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity
    from agetf_pipeline.synthetic.population import age_at, rephotograph

    parts = ["calibration", "test", *EXPERTS]
    first = (seed + 1) * 10_000_000 + parts.index(part) * 100_000
    rng = np.random.default_rng([211, first])
    positions = (rng.permutation(num_faces) + rng.uniform(0, 1, num_faces)) / num_faces
    ages = np.array([age_at(position, (0.1,) * len(AGE_GROUPS)) for position in positions])
    people = np.arange(num_faces) // AGES_PER_PERSON
    faces = np.empty((num_faces, SIZE_PX, SIZE_PX, 3), np.uint8)
    for n in range(num_faces):
        who = rephotograph(draw_identity(first + int(people[n])), first + 50_000 + n)
        faces[n] = draw_face(who, float(ages[n]), SIZE_PX)
    names = np.array([f"{part}-{person}" for person in people])
    return {"faces": faces, "ages": ages, "people": names}


def _save_part(folder: Path, part: str, num_faces: int, seed: int) -> None:
    np.savez(folder / f"{seed}-{part}.npz", **_draw_part(part, num_faces, seed))


def _taught_ages(name: str, ages: np.ndarray, seed: int) -> np.ndarray:
    """Return the labels that an expert learns from: biased, noisy, some of other faces."""
    rng = np.random.default_rng([223, seed, list(EXPERTS).index(name)])
    spread = LABEL_NOISE[0] + LABEL_NOISE[1] * ages
    taught = EXPERTS[name].bias(ages) + rng.normal(0, 1, len(ages)) * spread
    moved = np.flatnonzero(rng.uniform(0, 1, len(ages)) < EXPERTS[name].shuffled)
    taught[moved] = taught[rng.permutation(moved)]
    return np.clip(taught, 0.0, 100.0).astype(np.float32)


def _train_and_read(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one expert; return its version, and its ages and sigmas of calibration and test."""
    import torch

    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.experts.load import TRAINED_FILE, expert_folder, load_expert

    torch.set_num_threads(1)
    how = EXPERTS[name]
    expert = {"size": "tiny", "input_px": SIZE_PX, "num_steps": how.num_steps,
              "batch_size": BATCH_SIZE, "lr": how.lr}  # fmt: skip
    config = PipelineConfig.model_validate(
        {
            "train_experts": {"experts": {name: expert}, "seed": seed},
            "caption": {"num_train_faces": 0},
            "runtime": {"device": "cpu", "precision": "fp32"},
        }
    )
    workspace = Workspace(folder / f"{seed}-{name}")
    part = _draw_part(name, NUM_TRAIN, seed)
    taught = _taught_ages(name, part["ages"], seed)
    target, unfinished = expert_folder(workspace, name), workspace.root / "unfinished.pt"
    card = {"trained_on": "synthetic"}
    if name == "janus":
        from agetf_pipeline.experts.janus import fit_janus

        fit_janus(config, workspace, part["faces"], taught, unfinished, "benchmark", target, card)
    else:
        from agetf_pipeline.experts.training import LabelledFaces, fit_expert

        fit_expert(
            name, config.train_experts.experts[name],
            LabelledFaces(part["faces"], taught, [None] * len(taught)), seed,
            torch.device("cpu"), unfinished, "benchmark", target / TRAINED_FILE, card,
        )  # fmt: skip
    loaded = load_expert(config, workspace, name)
    found: dict[str, Any] = {"version": loaded.version}
    for held in ("calibration", "test"):
        faces = np.load(folder / f"{seed}-{held}.npz")["faces"]
        batches = [loaded.read(faces[i : i + READ_BATCH]) for i in range(0, len(faces), READ_BATCH)]
        found[held] = (
            np.concatenate([batch.age_years for batch in batches]).astype(np.float64),
            np.concatenate([batch.sigma_years for batch in batches]).astype(np.float64),
        )
    return found


def _calibration_data(seed: int, part: str, read: dict[str, dict[str, Any]], folder: Path) -> Any:
    """Lay out what the experts read of one part; one of them is made to be silent at random."""
    from agetf_pipeline.moe.fitting import CalibrationData

    names = sorted(read)
    truth = np.load(folder / f"{seed}-{part}.npz")
    num_images = len(truth["ages"])
    rng = np.random.default_rng([227, seed, len(part)])
    ok_NE = np.stack(
        [rng.uniform(0, 1, num_images) >= EXPERTS[name].missing for name in names], axis=1
    )
    age_NE = np.stack([read[name][part][0] for name in names], axis=1)
    sigma_NE = np.stack([read[name][part][1] for name in names], axis=1)
    return CalibrationData(
        names, [read[name]["version"] for name in names], age_NE, sigma_NE,
        ok_NE & np.isfinite(age_NE), truth["ages"], truth["people"],
    )  # fmt: skip


def _evaluate(
    seed: int, read: dict[str, dict[str, Any]], folder: Path, plots: Path | None
) -> dict[str, Any]:
    """Calibrate on the calibration people, measure on the test people, and print."""
    from agetf_pipeline.core.statistics import Sampling
    from agetf_pipeline.moe.comparison import error_covariance
    from agetf_pipeline.moe.fitting import fit_calibration, read_images
    from agetf_pipeline.moe.transparency import (
        flat_figures,
        measure_transparency,
        write_transparency,
    )

    calibrating = _calibration_data(seed, "calibration", read, folder)
    testing = _calibration_data(seed, "test", read, folder)
    calibration, fitted = fit_calibration(calibrating, 2, LEVEL, 50, seed)
    assert fitted is not None
    tested = read_images(testing, calibration, 2)
    sampling = Sampling(seed=seed, synthetic=True, num_bootstrap=1000)
    found = measure_transparency(testing, tested, LEVEL, sampling, error_covariance(fitted))
    if plots is not None:
        write_transparency(
            plots / f"seed-{seed}", calibrating, fitted, calibration, LEVEL, seed, synthetic=True
        )
    statements = _statements(found, testing.names)
    _print_table(seed, found, testing.names)
    for statement in statements:
        print(f"  {'holds' if statement['holds'] else 'DOES NOT HOLD'}: {statement['text']}")
    group = calibration.group_conformal
    return {
        "seed": seed,
        "num_calibration_images": len(calibrating.true_age_N),
        "num_test_images": len(testing.true_age_N),
        "group_level": None if group is None else group.level,
        "figures": flat_figures(found, testing.names),
        "coverage": {name: item.as_dict() for (metric, name), item in found.intervals.items()
                     if metric == "coverage"},
        "width_years": {name: item.as_dict() for (metric, name), item in found.intervals.items()
                        if metric == "width_years"},
        "comparisons": {
            item.name: {"about": item.about, "gain_years": item.gain.as_dict(),
                        "other_mae_years": item.other_mae.as_dict(),
                        "mixture_mae_years": item.mixture_mae.as_dict(),
                        "worst_group_gain_years": item.worst_group_gain.as_dict()}
            for item in found.comparisons
        },
        "statements": statements,
    }  # fmt: skip


def _statements(found: Any, names: list[str]) -> list[dict[str, Any]]:
    """Return what must hold, with whether it does."""
    from agetf_pipeline.moe.comparison import BEST_EXPERT

    best = next(item for item in found.comparisons if item.name == BEST_EXPERT)
    weights = {name: found.weights[name, "all"].value or 0.0 for name in names}
    overall = found.intervals["coverage", "all"].value or 0.0
    groups = {name: found.intervals["coverage", name] for name in AGE_GROUPS}
    lowest = min(groups, key=lambda name: groups[name].value or 0.0)
    smallest = min(item.n for item in groups.values())
    gain = best.gain
    return [
        {
            "text": f"the mixture is better than the best corrected expert ({best.expert}) on the "
            f"{gain.n} images that this one answered: MAE {best.mixture_mae.value:.2f} against "
            f"{best.other_mae.value:.2f}, gain {gain.value:.2f} "
            f"({gain.low:.2f} to {gain.high:.2f}) years",
            "holds": bool(gain.low is not None and gain.low > 0),
        },
        {
            "text": f"the bad expert ({BAD}) has the lowest mean weight: "
            + ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()),
            "holds": min(weights, key=lambda name: weights[name]) == BAD,
        },
        {
            "text": f"{LEVEL:.0%} intervals hold {OVERALL[0]:.0%} to {OVERALL[1]:.0%} of all true "
            f"ages: {overall:.1%}",
            "holds": OVERALL[0] <= overall <= OVERALL[1],
        },
        {
            "text": f"and at least {LEAST_IN_GROUP:.0%} in each of the ten true age groups (n >= "
            f"{smallest}): lowest {groups[lowest].value or 0.0:.1%} in {lowest}",
            "holds": smallest >= GROUP_SIZE and (groups[lowest].value or 0.0) >= LEAST_IN_GROUP,
        },
    ]


def _print_table(seed: int, found: Any, names: list[str]) -> None:
    print(f"\n== seed {seed}: synthetic faces, test people; years; 95% intervals over people")
    print(f"{'':22s}{'MAE':>7s}{'CS@5':>7s}{'EMD':>7s}{'bias':>7s}{'NLL':>7s}{'weight':>8s}")
    kinds = [(name, kind) for name in names for kind in ("raw", "corrected")]
    for name, kind in [*kinds, ("mixture", "mixture")]:
        metrics = ("mae_years", "cs5", "emd_years", "bias_years", "nll")
        values = [found.readers[name, kind, metric, "all"].value for metric in metrics]
        row = f"{name if kind == 'mixture' else f'{name}, {kind}':22s}"
        row += "".join(f"{value:7.2f}" for value in values)
        if kind == "corrected":
            row += f"{found.weights[name, 'all'].value:8.3f}"
        print(row)
    print("gain of the mixture (paired, on the images that both answered):")
    for item in found.comparisons:
        about = f"{item.name} ({item.expert})" if item.expert else item.name
        print(f"  over {about:24s} n={item.gain.n}  {item.gain.value:+6.2f} "
              f"({item.gain.low:+.2f} to {item.gain.high:+.2f})   worst age group "
              f"{item.worst_group_gain.value:+.2f} ({item.worst_group_gain.low:+.2f} to "
              f"{item.worst_group_gain.high:+.2f})")  # fmt: skip
    cells = [
        f"{group} {found.intervals['coverage', group].value:.1%} "
        f"({found.intervals['width_years', group].value:.1f})"
        for group in (*AGE_GROUPS, "all")
    ]
    print("coverage of 90% intervals (mean width, years) by true age group:")
    print("  " + "; ".join(cells[:6]) + "\n  " + "; ".join(cells[6:]))


if __name__ == "__main__":
    main()
