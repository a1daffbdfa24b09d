"""Rendering: ten ages of one face on a CPU, in every way the Renderer can, and batches of faces.

    python -m benchmarks.render [--size base-128] [--compile] [--out results.json]

Random weights: they tell cost and rounding, nothing about pictures. What is timed runs from uint8
faces to uint8 renderings. The ways take turns, and of each the run that took least processor time
counts, since other work on the machine can only add to it; the clock is beside it. Ten passes are
what the same network costs when each age encodes the face again and is decoded alone.

The published model's figures are quoted for reference; they are not measured here. Compiling takes
minutes on two cores, so that it is done with --compile only.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processor import bf16_gain, bf16_instructions
from benchmarks.rows import Row

if TYPE_CHECKING:
    from agetf_pipeline.age_transformer.model import AgeTransformer
    from agetf_pipeline.age_transformer.renderer import Renderer

_AGES_YEARS = tuple(range(5, 100, 10))
_ROUNDS = 3
_BATCHES = (1, 4, 16)
_MOST_GFLOP = 65.0
_MOST_PROCESSOR_S = 4.0
_PUBLISHED = {"gflop": 4298.0, "processor_s": 130.0}
"""The published model, ten ages of one 128 px face, on two cores: quoted, not measured here."""


@dataclass
class Way:
    """One way to render ten ages of a face, and how long it took."""

    render: Callable[[np.ndarray], np.ndarray]
    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    def time(self, faces_NHWC: np.ndarray) -> None:
        """Render the faces once more."""
        wall_s, processor_s = time.perf_counter(), time.process_time()
        self.render(faces_NHWC)
        self.wall_s.append(time.perf_counter() - wall_s)
        self.processor_s.append(time.process_time() - processor_s)


def rows() -> Iterator[Row]:
    """Yield the rows of the table of `make bench`; see `render_rows`."""
    from benchmarks import render_rows

    yield from render_rows.rows()


def main() -> None:
    """Run the benchmark."""
    from agetf_pipeline.age_transformer.sizes import SIZES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.render")
    parser.add_argument("--size", choices=sorted(SIZES), default="base-128")
    parser.add_argument("--compile", action="store_true", help="compile as well: minutes")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options, _ = parser.parse_known_args()

    import torch

    from agetf_pipeline.age_transformer.summary import cost_of
    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.core.files import write_json

    set_num_threads(2)
    model = _model(options.size)
    cost = cost_of(options.size, model.settings, len(_AGES_YEARS))
    with tempfile.TemporaryDirectory() as folder:
        ways, reasons = _ways(model, Path(folder), options.compile)
    faces = _faces(max(_BATCHES), model.settings.size_px)
    results: dict[str, Any] = {
        "size": options.size,
        "weights": "random: cost and rounding only",
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": bf16_instructions(),
        "bf16_matrix_product_gain": round(bf16_gain(), 2),
        "gflop_ten_ages": round(cost.gflop, 3),
        "ten_ages": _time_ways(ways, faces[:1]),
        "not_measured": reasons,
        "throughput": _throughput(ways, faces),
        "published_reference_not_measured": _PUBLISHED,
    }
    results["ten_passes_over_one"] = _ratio(results, "ten passes, fp32", "fp32")
    results["fp32_over_bf16"] = _ratio(results, "fp32", "bf16")
    print("\n".join(_lines(results)), flush=True)
    if options.out is not None:
        write_json(options.out, results)
        print(f"written: {options.out}")


def _model(size: str) -> "AgeTransformer":
    import torch

    from agetf_pipeline.age_transformer.model import AgeTransformer
    from agetf_pipeline.age_transformer.sizes import settings_of

    torch.manual_seed(0)
    model = AgeTransformer(settings_of(size)).eval()
    with torch.no_grad():
        # At its start the model returns the image, and there would be nothing to round.
        for layer in (model.to_flow, model.to_image):
            layer.weight.normal_(std=0.02)
    return model


def _ways(
    model: "AgeTransformer", folder: Path, compiled: bool
) -> tuple[dict[str, Way], dict[str, str]]:
    """Return the ways to render, and why others are left out."""
    from agetf_pipeline.age_transformer.exporting import export_program
    from agetf_pipeline.age_transformer.renderer import KIND, Renderer

    def one_pass(renderer: "Renderer", faces_NHWC: np.ndarray) -> np.ndarray:
        return renderer.render(faces_NHWC, _AGES_YEARS)

    def ten_passes(renderer: "Renderer", faces_NHWC: np.ndarray) -> np.ndarray:
        return np.concatenate([renderer.render(faces_NHWC, [age]) for age in _AGES_YEARS], axis=1)

    card = {"kind": KIND, "model": model.settings.to_card()}
    program = export_program(model, card, folder / "model.pt2")
    fp32 = Renderer(copy.deepcopy(model))
    ways = {
        "fp32": Way(partial(one_pass, fp32)),
        "bf16": Way(partial(one_pass, Renderer(copy.deepcopy(model), precision="bf16"))),
        "ten passes, fp32": Way(partial(ten_passes, fp32)),
        "exported, fp32": Way(partial(one_pass, Renderer.load(program))),
        "exported, bf16": Way(partial(one_pass, Renderer.load(program, precision="bf16"))),
    }
    if not compiled:
        reason = "compiling takes minutes: ask for it with --compile"
        return ways, {"compiled, fp32": reason, "compiled, bf16": reason}
    for precision in ("fp32", "bf16"):
        renderer = Renderer(copy.deepcopy(model), precision=precision, compiled=True)
        ways[f"compiled, {precision}"] = Way(partial(one_pass, renderer))
    return ways, {}


def _time_ways(ways: dict[str, Way], faces_NHWC: np.ndarray) -> dict[str, dict[str, float]]:
    """Time every way in turns; return its figures and its difference from fp32, in levels."""
    first = {name: way.render(faces_NHWC).astype(int) for name, way in ways.items()}
    for _ in range(_ROUNDS):
        for way in ways.values():
            way.time(faces_NHWC)
    return {
        name: {
            "processor_s": min(way.processor_s),
            "wall_s": min(way.wall_s),
            "max_levels_from_fp32": int(np.abs(first[name] - first["fp32"]).max()),
            "mean_levels_from_fp32": float(np.abs(first[name] - first["fp32"]).mean()),
        }
        for name, way in ways.items()
    }


def _throughput(ways: dict[str, Way], faces_NHWC: np.ndarray) -> list[dict[str, Any]]:
    """Return renderings a second of calls with several faces, ten ages each."""
    rows = []
    for number in _BATCHES:
        for name in ("fp32", "bf16"):
            way = Way(ways[name].render)
            way.time(faces_NHWC[:number])
            renderings = number * len(_AGES_YEARS)
            rows.append({
                "precision": name,
                "num_faces": number,
                "renderings_per_s": renderings / way.wall_s[0],
                "processor_s_per_face": way.processor_s[0] / number,
            })  # fmt: skip
    return rows


def _ratio(results: dict[str, Any], above: str, below: str) -> float:
    return results["ten_ages"][above]["processor_s"] / results["ten_ages"][below]["processor_s"]


def _lines(results: dict[str, Any]) -> list[str]:
    gflop = results["gflop_ten_ages"]
    fp32_s = results["ten_ages"]["fp32"]["processor_s"]
    bf16_s = results["ten_ages"]["bf16"]["processor_s"]
    base = results["size"] == "base-128"

    def verdict(holds: bool, wanted: str) -> str:
        return f"({'as' if holds else 'NOT as'} wanted: {wanted})" if base else ""

    lines = [
        f"{results['size']}, ten ages of one face, {results['num_threads']} threads, random "
        "weights: cost and rounding only",
        f"  {results['cpu']}; a bf16 matrix product is {results['bf16_matrix_product_gain']} "
        "times as fast as fp32",
        f"  {gflop:.2f} GFLOP {verdict(gflop <= _MOST_GFLOP, f'at most {_MOST_GFLOP:g}')}",
        "  way                 processor s   clock s   of 255 levels from fp32: most, mean",
    ]
    for name, row in results["ten_ages"].items():
        lines.append(
            f"  {name:18s} {row['processor_s']:12.3f} {row['wall_s']:9.3f}   "
            f"{row['max_levels_from_fp32']:d}, {row['mean_levels_from_fp32']:.4f}"
        )
    lines += [f"  {name:18s} not measured: {why}" for name, why in results["not_measured"].items()]
    within = fp32_s <= _MOST_PROCESSOR_S
    lines += [
        f"  fp32 {fp32_s:.2f} processor seconds "
        f"{verdict(within, f'at most {_MOST_PROCESSOR_S:g}')}; bf16 {bf16_s:.2f} "
        f"{verdict(bf16_s < fp32_s, 'less than fp32')}",
        f"  ten passes cost {results['ten_passes_over_one']:.2f} times one pass of ten ages; fp32 "
        f"{results['fp32_over_bf16']:.2f} times bf16",
    ]
    for row in results["throughput"]:
        lines.append(
            f"  {row['num_faces']:2d} faces x 10 ages, {row['precision']}: "
            f"{row['renderings_per_s']:6.1f} renderings/s, "
            f"{row['processor_s_per_face']:.3f} processor s a face"
        )
    if base:
        lines.append(
            f"  reference, quoted and not measured here: the published model, "
            f"{_PUBLISHED['gflop']:,.0f} GFLOP, about {_PUBLISHED['processor_s']:.0f} processor "
            f"seconds for ten ({_PUBLISHED['gflop'] / gflop:.0f} times the GFLOP)"
        )
    return lines


def _faces(number: int, size_px: int) -> np.ndarray:
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    return np.stack([draw_face(draw_identity(seed), 40.0, size_px) for seed in range(number)])


if __name__ == "__main__":
    main()
