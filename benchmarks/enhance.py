"""Enhancement: the stage's engine beside the official one-image-at-a-time loops, on a CPU.

    python -m benchmarks.enhance [--only srvgg ddcolor rrdbnet] [--num-images 8]

Both sides read the same PNG files, use the same seeded random weights (they tell cost and rounding,
nothing about pictures) and as many threads, and write PNG files. Official: RealESRGANer (tile=0,
and pre_pad=0 as its script calls it) with `enhance` of one picture after the other; for DDColor
what its pipeline's `process` does, on the plain network: fp32, spectral norms computed in every
pass, the full-size map of every colour query. Ours: what the stage runs, decoding ahead, networks
in bf16 where the CPU computes in it, writing behind. The sides take turns, so that a machine whose
load changes slows both; processor time is given too: on a busy machine only that is a property of
the code.

The ceiling is the bare network on tensors, at the same precision and batches, nothing decoded or
written; official loops are compared with theirs in the same way.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

_SEED = 0
_BATCH = 1
_FACE_PX = {"srvgg": 128, "rrdbnet": 128, "ddcolor": 256}
_NUM_FACES = {"srvgg": 32, "rrdbnet": 4, "ddcolor": 24}
_OFFICIAL_EVERY = {"srvgg": 4, "rrdbnet": 2, "ddcolor": 3}
"""Of how many faces one is done the official way."""
_WANTED = {"srvgg": 6.0, "rrdbnet": 5.0, "ddcolor": 2.5}
_TITLES = {
    "srvgg": "SRVGG x4 (general-x4v3's shape), 128 px",
    "rrdbnet": "RRDBNet x4 (x4plus's shape), 128 px",
    "ddcolor": "DDColor (the published tiny's shape), 256 px",
}


@dataclass
class Clock:
    """Seconds of wall clock and of the processor, over how many pictures."""

    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    num_pictures: int = 0

    def time(self, work: Callable[[], object], num_pictures: int) -> None:
        """Run `work`, which is of so many pictures."""
        wall_s, processor_s = time.perf_counter(), time.process_time()
        work()
        self.wall_s.append(time.perf_counter() - wall_s)
        self.processor_s.append(time.process_time() - processor_s)
        self.num_pictures += num_pictures

    def each_s(self) -> tuple[float, float]:
        """Return seconds a picture, of wall clock and of the processor."""
        return sum(self.wall_s) / self.num_pictures, sum(self.processor_s) / self.num_pictures


@dataclass(frozen=True)
class Sides:
    """One network, both ways.

    Attributes:
        official: Reads one file, enhances it the official way, writes one file.
        ours: Reads, enhances and writes files as the stage does.
        bare: Runs our network on this many pictures that are tensors.
        exact: Ours in fp32, uint8 pictures to uint8 pictures.
        fast: Ours as it is timed.
    """

    official: Callable[[Path, Path], None]
    ours: Callable[[list[Path], Path], None]
    bare: Callable[[int], None]
    exact: Callable[[list[np.ndarray]], list[np.ndarray]]
    fast: Callable[[list[np.ndarray]], list[np.ndarray]]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance")
    parser.add_argument("--only", nargs="+", choices=sorted(_TITLES), default=sorted(_TITLES))
    parser.add_argument("--num-images", type=int, help="By default as many as take a while.")
    options, _ = parser.parse_known_args()

    import torch

    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.enhance.engine import choose_precision

    set_num_threads(None)
    precision = choose_precision("bf16", torch.device("cpu"))
    print(
        f"random weights: cost and rounding only; {torch.get_num_threads()} threads on both sides; "
        f"ours in {precision}"
    )
    print(f"  {_instructions()}; a bf16 matrix product is {_bf16_gain():.1f} times as fast as fp32")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            _report(name, Path(folder), precision, options.num_images or _NUM_FACES[name])


def _report(name: str, folder: Path, precision, num_images: int) -> None:
    paths = _write_faces(folder, _FACE_PX[name], num_images)
    sides = _ddcolor(folder, precision) if name == "ddcolor" else _esrgan(name, folder, precision)
    sides.ours(paths[:2], folder)  # no import and no first call is counted
    if name != "rrdbnet":
        sides.official(paths[0], folder)
    official, ours, bare = Clock(), Clock(), Clock()
    half = max(len(paths) // 2, 1)
    for part in (paths[:half], paths[half:] or paths[:half]):
        bare.time(partial(sides.bare, len(part)), len(part))
        for path in part[:: _OFFICIAL_EVERY[name]]:
            official.time(partial(sides.official, path, folder), 1)
        ours.time(partial(sides.ours, part, folder), len(part))
        bare.time(partial(sides.bare, len(part)), len(part))
    print(f"{_TITLES[name]}")
    for label, clock in (("official loop", official), ("ours", ours), ("bare network", bare)):
        wall_s, processor_s = clock.each_s()
        print(
            f"  {label:14s} {1 / wall_s:7.2f} images/s   {1000 * wall_s:7.0f} ms an image, "
            f"{1000 * processor_s:7.0f} ms of the processor"
        )
    pairs = zip(official.each_s(), ours.each_s(), bare.each_s(), strict=True)
    (wall, share), (processor, processor_share) = [(a / b, c / b) for a, b, c in pairs]
    print(
        f"  times as fast  {wall:7.2f} by the clock, {processor:.2f} of the processor "
        f"(at least {_WANTED[name]} wanted on a CPU with bf16 matrix units)"
    )
    print(
        f"  of the ceiling {share:7.1%} by the clock, {processor_share:.1%} of the processor "
        "(at least 90% wanted)"
    )
    faces = [_read(path) for path in paths[:2]]
    print(f"  {precision} to fp32  {_psnr_db(sides.fast(faces), sides.exact(faces)):8.2f} dB PSNR")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory of the process so far {peak_mib:.0f} MiB", flush=True)


def _esrgan(name: str, folder: Path, precision) -> Sides:
    import torch

    from agetf_pipeline.enhance.basicsr_compat import realesrganer_class
    from agetf_pipeline.enhance.engine import inference, map_batches
    from agetf_pipeline.enhance.esrgan import build_esrgan, load_esrgan

    torch.manual_seed(_SEED)
    arch = "srvgg" if name == "srvgg" else "rrdbnet"
    path = folder / "esrgan.pth"
    torch.save({"params": build_esrgan(arch, "full", 4).state_dict()}, path)
    peer = realesrganer_class()(
        4, str(path), model=build_esrgan(arch, "full", 4), tile=0, pre_pad=0, half=False,
        device=torch.device("cpu"),
    )  # fmt: skip
    ours = load_esrgan(path, arch, "full", 4, precision=precision)
    exact = load_esrgan(path, arch, "full", 4)

    def official(source: Path, target: Path) -> None:
        import cv2

        bgr, _ = peer.enhance(cv2.imread(str(source)))
        cv2.imwrite(str(target / "official.png"), bgr)

    def bare(number: int) -> None:
        x_N3HW = torch.rand(_BATCH, 3, _FACE_PX[name], _FACE_PX[name])
        if precision == "bf16":
            x_N3HW = x_N3HW.contiguous(memory_format=torch.channels_last)

        def run(_: int) -> None:
            with inference(precision, ours.device):
                ours.network(x_N3HW)

        list(map_batches(run, range(number // _BATCH), ours.device))

    def resolve(resolver, images: list[np.ndarray]) -> list[np.ndarray]:
        return list(resolver(np.stack(images), 512, _BATCH))

    return Sides(
        official, _stage(super_resolve=lambda x: ours(x, 512, _BATCH), scale=4), bare,
        partial(resolve, exact), partial(resolve, ours),
    )  # fmt: skip


def _ddcolor(folder: Path, precision) -> Sides:
    import torch

    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.enhance.colour import load_ddcolor
    from agetf_pipeline.enhance.ddcolor import SIZES, DDColor
    from agetf_pipeline.enhance.engine import inference, map_batches

    torch.manual_seed(_SEED)
    plain = DDColor(SIZES["base"])
    with torch.no_grad():
        plain(torch.rand(2, 3, 64, 64))  # batch norms away from their start
        # Answers of the order that training gives, so that rounding has something to round.
        plain.decoder.colours.mlp[2].weight.mul_(500)  # type: ignore[operator]
    path, input_px = folder / "ddcolor.safetensors", _FACE_PX["ddcolor"]
    save_weights(path, plain, {})
    plain.eval()
    ours = load_ddcolor(path, "base", input_px, precision=precision)
    exact = load_ddcolor(path, "base", input_px)
    device = torch.device("cpu")

    def official(source: Path, target: Path) -> None:
        import cv2

        rgb = _official_colour(plain, _read(source), input_px)
        cv2.imwrite(str(target / "official.png"), np.ascontiguousarray(rgb[:, :, ::-1]))

    def bare(number: int) -> None:
        x_N3HW = torch.rand(_BATCH, 3, input_px, input_px)
        x_N3HW = x_N3HW.contiguous(memory_format=torch.channels_last)

        def run(_: int) -> None:
            with inference(precision, device):
                ours.network(x_N3HW)

        list(map_batches(run, range(number // _BATCH), device))

    return Sides(
        official, _stage(colourise=lambda images: ours(images, _BATCH)), bare,
        exact, ours,
    )  # fmt: skip


def _official_colour(network, rgb_HW3: np.ndarray, input_px: int) -> np.ndarray:
    """Colour one picture as the official pipeline's `process` goes about it, in fp32."""
    import torch

    from agetf_pipeline.enhance.colour import grey_input, join_colour

    with torch.inference_mode():
        grey = grey_input(rgb_HW3, input_px)
        x_13HW = torch.from_numpy(np.ascontiguousarray(grey.transpose(2, 0, 1)))[None]
        return join_colour(rgb_HW3, network(x_13HW)[0].numpy())


def _stage(colourise=None, super_resolve=None, scale: int = 1):
    """Return what the stage does with a chunk of files: decode ahead, compute, write behind."""
    import torch

    from agetf_pipeline.config.enhance import EnhanceConfig
    from agetf_pipeline.enhance.apply import Enhancer

    config = EnhanceConfig(
        target_px=512 if super_resolve else 256,
        colourise="always" if colourise else "never",
        super_resolve="always" if super_resolve else "never",
    )
    enhancer = Enhancer(
        config, colourise or list, super_resolve or np.copy, scale,
        at_once=_BATCH * torch.get_num_threads(),
    )  # fmt: skip
    return partial(_enhance_files, enhancer)


def _enhance_files(enhancer, paths: list[Path], folder: Path) -> None:
    import polars as pl

    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.stages.enhance import enhance_chunk

    workspace = Workspace(folder)
    names = [workspace.relative(path) for path in paths]
    # The files' own hashes, as ingest gives them.
    chunk = pl.DataFrame({"image_id": [path.stem for path in paths], "path": names})
    chunk = chunk.with_columns(face_path="path")
    versions = {"ddcolor": "random", "esrgan": "random"}
    rows = enhance_chunk(workspace, "caf/random", enhancer, versions, "benchmark", chunk)
    assert rows["status"].to_list() == ["ok"] * len(paths)


def _write_faces(folder: Path, side_px: int, number: int) -> list[Path]:
    from PIL import Image

    from agetf_pipeline.core.hashing import hash_file
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    paths = []
    for seed in range(number):
        path = folder / "face.png"
        Image.fromarray(draw_face(draw_identity(seed), 40.0, side_px)).save(path)
        paths.append(path.rename(folder / f"{hash_file(path)}.png"))
    return paths


def _read(path: Path) -> np.ndarray:
    from agetf_pipeline.data.images import read_rgb

    return read_rgb(path)


def _psnr_db(ours: list[np.ndarray], exact: list[np.ndarray]) -> float:
    error = np.stack(ours).astype(float) - np.stack(exact)
    mean_square = float(np.mean(error**2))
    return float("inf") if mean_square == 0 else 10 * np.log10(255**2 / mean_square)


def _instructions() -> str:
    """Say what this CPU has for bf16; Linux on x86 alone tells."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "what this CPU has for bf16 is not known"
    found = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    matrix = "bf16 matrix units" if "amx_bf16" in found else "no bf16 matrix units"
    return f"this CPU has {matrix} ({', '.join(found) or 'no bf16 instructions'})"


def _bf16_gain() -> float:
    """Return what bf16 gains on one large matrix product: what this CPU can give at most."""
    import torch

    clocks = {torch.float32: Clock(), torch.bfloat16: Clock()}
    for round_ in range(4):
        for dtype, clock in clocks.items():
            square = torch.rand(2048, 2048).to(dtype)
            if round_ == 0:
                torch.matmul(square, square)
            clock.time(partial(torch.matmul, square, square), 1)
    fp32, bf16 = (sum(clock.processor_s) for clock in clocks.values())
    return fp32 / bf16


if __name__ == "__main__":
    main()
