"""Relabelling: speed beside the bare networks, and memory while the input grows.

    python -m benchmarks.relabel [--num-images 96] [--sizes 1000 50000]

Speed: the stages predict and relabel over image files, against the same networks on tensors that
are decoded, resized and normalised already, in the same process, at the same batch sizes; imports
and loading are counted nowhere. ResNet50, VGG16 and MiVOLO-d1 have their full size (random weights:
their ages mean nothing here, their cost does); Janus is the tiny one, since a full one takes
seconds a face and would hide everything else.

Memory: peak resident memory of a process that predicts and relabels a corpus with tiny networks,
for each of the sizes. The rows point to a thousand files, again and again.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

_NAMES = ("janus", "mivolo", "resnet50", "vgg16")
_FACE_PX = 512


def main() -> None:
    """Run both benchmarks, or one process of the second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=96)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 50_000])
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        _measure_memory(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        _report_speed(Path(folder), options.num_images)
    if not options.skip_memory:
        _report_memory(options.sizes)


def _report_speed(folder: Path, num_images: int) -> None:
    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.stages import predict, relabel

    workspace = Workspace(folder)
    config = _config(folder, "full", 224)
    _save_networks(workspace, config)
    _write_corpus(workspace, num_images, num_images, _FACE_PX, "jpg")
    set_num_threads(None)
    experts = {expert.name: expert for expert in load_experts(config, workspace)}
    bare_s = {name: _bare_s(config, experts[name], num_images) for name in _NAMES}
    _warm_up(folder / "warm")
    started_s = time.perf_counter()
    predict.run(config, workspace, "ffhq_aging")
    relabel.run(config, workspace)
    ours_s = time.perf_counter() - started_s
    again_s = {name: _bare_s(config, experts[name], num_images) for name in _NAMES}
    # Before and after: a machine whose load changes shows in the difference.
    total_s = (sum(bare_s.values()) + sum(again_s.values())) / 2
    print(f"{num_images} JPEG faces of {_FACE_PX} px, fp32, CPU")
    for name in _NAMES:
        each = 1000 * (bare_s[name] + again_s[name]) / 2 / num_images
        print(f"  bare {name:9s} {each:7.1f} ms a face")
    print(f"  four bare networks     {num_images / total_s:6.2f} faces/s")
    print(f"  predict and relabel    {num_images / ours_s:6.2f} faces/s")
    print(f"  share of the ceiling   {total_s / ours_s:6.1%}  (at least 90 % wanted)")
    _report_bf16(config, experts, num_images)
    spread = sum(again_s.values()) / sum(bare_s.values())
    print(f"  the bare networks took {spread:.2f} times as long after as before")


def _report_bf16(config, experts: dict, num_images: int) -> None:
    """Print what bf16 gains, and what the ages of the test faces say of it."""
    import torch

    from agetf_pipeline.core.devices import computes_bf16
    from agetf_pipeline.experts.precision import AutocastExpert, age_shift_years

    device = torch.device("cpu")
    if not computes_bf16(device):
        print("  bf16: this CPU does not compute in it")
        return
    for name in ("mivolo", "resnet50", "vgg16"):
        expert = experts[name]
        fp32_s = _bare_s(config, expert, num_images // 2)
        expert.module.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            bf16_s = _bare_s(config, expert, num_images // 2)
        shift = age_shift_years(expert, AutocastExpert(expert, device))
        print(
            f"  bf16 + channels_last   {name:9s} {fp32_s / bf16_s:5.2f} times as fast; largest "
            f"shift of a test face {shift:.3f} years (random weights)"
        )


def _warm_up(folder: Path) -> None:
    """Relabel a few images, so that no import is counted; the bare networks are warm too."""
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.stages import predict, relabel

    workspace, config = Workspace(folder), _config(folder, "tiny", 32)
    _save_networks(workspace, config)
    _write_corpus(workspace, 20, 20, 64, "jpg")
    predict.run(config, workspace, "ffhq_aging")
    relabel.run(config, workspace)


def _bare_s(config, expert, num_images: int) -> float:
    """Seconds of one network alone over `num_images` faces that are tensors already."""
    import torch

    from agetf_pipeline.experts.answer_trie import AnswerTrie
    from agetf_pipeline.experts.batching import batch_sizes
    from agetf_pipeline.experts.janus import AGE_QUESTION

    size = batch_sizes(config)[expert.name]
    input_px = config.train_experts.experts[expert.name].input_px
    batches = [torch.randn(min(size, num_images - at), 3, input_px, input_px)
               for at in range(0, num_images, size)]  # fmt: skip
    with torch.inference_mode():
        if expert.name == "janus":
            trie: AnswerTrie = expert.janus.age_trie()

            def run(x_NCHW) -> None:
                features = expert.janus.image_features(x_NCHW)
                expert.janus.answer_log_probs(features, AGE_QUESTION, trie)
        else:
            run = expert.module
        run(batches[0])
        started_s = time.perf_counter()
        for batch in batches:
            run(batch)
    return time.perf_counter() - started_s


def _report_memory(sizes: list[int]) -> None:
    peaks = {}
    for num_images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _prepare_memory(Path(folder), num_images)
            command = [sys.executable, "-m", "benchmarks.relabel", "--measure", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        peaks[num_images] = result["peak_mib"]
        print(
            f"  {num_images:7d} images: peak {result['peak_mib']:.0f} MiB "
            f"({result['loaded_mib']:.0f} MiB with the networks loaded), "
            f"predict {num_images / result['predict_s']:.0f} and relabel "
            f"{num_images / result['relabel_s']:.0f} images/s"
        )
    first, last = min(sizes), max(sizes)
    print(
        f"  {last / first:.0f} times the images: {peaks[last] / peaks[first]:.2f} times the "
        f"memory, "
        f"{(peaks[last] - peaks[first]) * 1024 / (last - first):.2f} KiB an image"
    )


def _prepare_memory(folder: Path, num_images: int) -> None:
    from agetf_pipeline.core.workspace import Workspace

    workspace = Workspace(folder)
    _save_networks(workspace, _config(folder, "tiny", 32))
    _write_corpus(workspace, num_images, min(1_000, num_images), 64, "jpg")


def _measure_memory(folder: Path) -> None:
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.stages import predict, relabel

    prepare_process()
    workspace, config = Workspace(folder), _config(folder, "tiny", 32)
    load_experts(config, workspace)
    loaded = _peak_mib()
    started_s = time.perf_counter()
    predict.run(config, workspace, "ffhq_aging")
    predicted_s = time.perf_counter()
    relabel.run(config, workspace)
    result = {
        "loaded_mib": loaded,
        "peak_mib": _peak_mib(),
        "predict_s": predicted_s - started_s,
        "relabel_s": time.perf_counter() - predicted_s,
    }
    print(json.dumps(result))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _config(folder: Path, size: str, input_px: int):
    from agetf_pipeline.config import PipelineConfig

    experts = {name: {"size": size, "input_px": input_px} for name in _NAMES}
    experts["janus"] = {"size": "tiny", "input_px": 64}
    return PipelineConfig.model_validate(
        {
            "workspace": {"root": str(folder)},
            "runtime": {"device": "cpu"},
            "relabel": {"log_to_mlflow": False},
            "train_experts": {"experts": experts},
        }
    )


def _save_networks(workspace, config) -> None:
    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.experts.janus import fit_janus
    from agetf_pipeline.experts.training import build_module

    logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
    for name in _NAMES:
        out = workspace.models / "experts" / name
        expert = config.train_experts.experts[name]
        card = {"trained_on": "random weights"}
        if name == "janus":
            faces = np.zeros((8, 64, 64, 3), np.uint8)
            ages = np.arange(8, dtype=np.float32)
            short = expert.model_copy(update={"num_steps": 1})
            experts = {**config.train_experts.experts, name: short}
            section = config.train_experts.model_copy(update={"experts": experts})
            brief = config.model_copy(
                update={
                    "train_experts": section,
                    "caption": config.caption.model_copy(update={"num_train_faces": 8}),
                }
            )
            checkpoint = workspace.state / "janus.pt"
            fit_janus(brief, workspace, faces, ages, checkpoint, "benchmark", out, card)
            continue
        module = build_module(name, expert, np.full(1, 40.0), seed=0)
        described = {"architecture": name, "size": expert.size, "input_px": expert.input_px}
        save_weights(
            out / "weights.safetensors", module, {**described, "profile": "imagenet", **card}
        )


def _write_corpus(workspace, num_images: int, num_files: int, size_px: int, suffix: str) -> None:
    from PIL import Image

    from agetf_pipeline.data.ages import AGE_GROUPS
    from agetf_pipeline.data.schemas import IMAGES
    from agetf_pipeline.data.tables import empty_frame, write_table
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    paths = []
    for index in range(num_files):
        path = workspace.raw_ffhq / f"{index:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw_face(draw_identity(index % 16), float(index % 90), min(size_px, 128))
        face = Image.fromarray(drawn).resize((size_px, size_px))
        face.save(path, quality=95)
        paths.append(workspace.relative(path))
    number = pl.int_range(num_images, eager=True).cast(pl.Int32)
    path = pl.Series([paths[n % num_files] for n in range(num_images)])
    constants = {
        "partition": "ffhq_aging", "raw_name": "x", "format": "JPEG", "mode": "RGB",
        "stored_width_px": size_px, "stored_height_px": size_px, "width_px": size_px,
        "height_px": size_px, "num_bytes": 1, "is_grey": False,
    }  # fmt: skip
    groups = [AGE_GROUPS[n % len(AGE_GROUPS)] for n in range(num_images)]
    frame = pl.DataFrame(
        {
            "image_id": [f"{n * 2654435761 % 2**32:08x}".zfill(64) for n in range(num_images)],
            "path": path + ".original", "face_path": path,
            "image_number": number, "age_group": groups,
        }
    ).with_columns(
        pl.lit([], dtype=pl.List(pl.String)).alias("flags"),
        **{name: pl.lit(value) for name, value in constants.items()},
    )  # fmt: skip
    schema = empty_frame(IMAGES).schema
    absent = [pl.lit(None).alias(name) for name in schema if name not in frame.columns]
    write_table(workspace, IMAGES, "ffhq_aging", frame.with_columns(absent).cast(dict(schema)))


if __name__ == "__main__":
    main()
