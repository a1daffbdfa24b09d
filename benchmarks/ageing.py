"""The AgeTransformer beside three baselines, on synthetic people whose truth is known.

    python -m benchmarks.ageing [--out FOLDER] [--num-images N] [--quick] [--only ours|unet]

A copy of the source, the nearest neighbour of the wanted age, and a residual U-Net in the manner
of FRAN are measured in the same run, on people whom nothing was trained on, by networks that
nothing was trained with. 40,000 images take more than an hour of one core (--quick: a minute, and
figures that mean nothing). What is finished is kept in FOLDER; the same command goes on after it.
With --only, one training alone is brought to its end: two processes can then share the work.

Writes results.json, table.md, curves.png and grid.png. Exits 1 where a wanted gain is not shown.
Every figure is of synthetic faces.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agetf_pipeline.age_transformer.renderer import Renderer
from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json, write_json, write_text
from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.evaluation.judges import Judge, read_ages
from benchmarks import ageing_baselines as baselines
from benchmarks import ageing_data as data
from benchmarks import ageing_figures as figures
from benchmarks import ageing_measures as measures
from benchmarks import ageing_networks as networks
from benchmarks import ageing_training as training
from benchmarks.ageing_measures import COPY, NEAREST, OURS, UNET

AGES = np.array(ANCHORS_YEARS)
_NUM_GRID_PEOPLE = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_ageing"))
    parser.add_argument("--num-images", type=int, help="that each training sees (40000)")
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    parser.add_argument("--only", choices=["ours", "unet"], help="one training alone")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    scale = data.QUICK if chosen.quick else data.FULL
    if chosen.num_images is not None:
        scale = replace(scale, num_images=chosen.num_images)
    out = chosen.out / ("quick" if chosen.quick else "full")
    begin_s = time.process_time()
    _claim(out, scale)
    lessons = data.lessons(scale, out)
    val = data.series("val", scale.num_val, out)
    test = data.series("test", scale.num_test, out)
    guides = networks.guides(scale, lessons.data, out)
    judges = networks.judges(scale, out)
    ours = unet = None
    if chosen.only != "unet":
        ours = training.train_ours(
            training.train_config(scale.num_images), lessons.data, guides,
            out / f"ours-{scale.num_images}",
            scale.num_chunks, lambda network: _validate(_render_ours(network, val), val, judges[0]),
        )  # fmt: skip
    if chosen.only != "ours":
        unet = training.train_unet(
            training.unet_config(scale.num_images), lessons.data, out / f"unet-{scale.num_images}",
            scale.num_chunks, lambda network: _validate(_render_unet(network, val), val, judges[0]),
        )  # fmt: skip
    if ours is None or unet is None:
        return
    renderings = {
        OURS: _render_ours(ours.network, test),
        COPY: baselines.render_copy(test.faces, len(AGES)),
        NEAREST: baselines.render_nearest(
            guides.identity_embedder, lessons, test.faces, np.repeat(test.genders, 2), ANCHORS_YEARS
        ),
        UNET: _render_unet(unet.network, test),
    }
    costs = networks.costs(ours.network, unet.network, guides.identity_embedder, lessons.data)
    trained = {OURS: ours, UNET: unet}
    results = _measure(renderings, test, judges, scale)
    results |= {
        "costs": costs,
        "curves": {name: item.curve for name, item in trained.items()},
        "scale": asdict(scale),
        "cpu_s_of_this_call": round(time.process_time() - begin_s),
    }
    write_json(out / "results.json", results)
    figures.draw_curves(out / "curves.png", {name: item.curve for name, item in trained.items()})
    figures.draw_grid(out / "grid.png", test, renderings, ANCHORS_YEARS, _NUM_GRID_PEOPLE)
    table = results["table"] + "\n" + figures.cost_table(costs, trained)
    write_text(out / "table.md", table)
    print(table)
    failed = _not_shown(results["gains"])
    for text in failed:
        print(f"NOT SHOWN: {text}")
    print(f"{out / 'results.json'}")
    if failed and not chosen.quick:
        sys.exit(1)


def _claim(out: Path, scale: data.Scale) -> None:
    """Refuse a folder whose people and evaluators are of another scale."""
    path = out / "scale.json"
    wanted = {name: value for name, value in asdict(scale).items() if name != "num_images"}
    if path.exists() and read_json(path) != wanted:
        raise DataError(
            f"Expected {out} to hold a run of the scale {wanted}; found {read_json(path)}. Delete "
            "the folder, or give another with --out."
        )
    write_json(path, wanted)


def _render_ours(network: torch.nn.Module, people: data.Series) -> np.ndarray:
    return Renderer(network).render(people.faces, ANCHORS_YEARS, 8)  # type: ignore[arg-type]


def _render_unet(network: torch.nn.Module, people: data.Series) -> np.ndarray:
    assert isinstance(network, baselines.ResidualUNet)
    return baselines.render_unet(network, people.faces, people.source_ages.ravel(), ANCHORS_YEARS)


def _validate(renderings: np.ndarray, people: data.Series, age_judge: Judge) -> dict[str, float]:
    """Return the figures of a point of the learning curves."""
    from agetf_pipeline.evaluation.image_metrics import psnr

    flat = renderings.reshape(-1, *renderings.shape[2:])
    read = read_ages(age_judge, flat).reshape(-1, len(AGES))
    truth = people.targets.reshape(flat.shape)
    return {"psnr": float(psnr(flat, truth).mean()),
            "age_mae_years": float(np.abs(read - AGES).mean())}  # fmt: skip


def _measure(
    renderings: dict[str, np.ndarray],
    test: data.Series,
    judges: tuple[Judge, Judge],
    scale: data.Scale,
) -> dict[str, Any]:
    sampling = Sampling(num_bootstrap=scale.num_bootstrap, synthetic=True)
    each = {
        method: measures.measure_each(images, test, AGES, judges)
        for method, images in renderings.items()
    }
    found = measures.summarise(each, test.people, sampling)
    real = measures.real_figures(test, AGES, judges, sampling)
    gains = measures.compare(each, test.people, sampling)
    return {
        "synthetic": True,
        "num_test_people": len(test.sources),
        "num_test_sources": len(test.people),
        "ages_years": list(ANCHORS_YEARS),
        "figures": {
            method: {name: item.as_dict() for name, item in values.items()}
            for method, values in found.items()
        },
        "true_faces": {name: item.as_dict() for name, item in real.items()},
        "gains": gains,
        "table": measures.markdown_table(found, real, gains),
    }


def _not_shown(gains: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['metric']} better than {row['baseline']}: gain {row['gain']['value']} "
        f"({row['gain']['low']} to {row['gain']['high']}), {row['verdict']}"
        for row in gains
        if row["wanted"] and row["verdict"] != "better"
    ]


if __name__ == "__main__":
    main()
