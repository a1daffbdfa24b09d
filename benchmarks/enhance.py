"""Enhancement: the stage's engine beside the official one-image-at-a-time loops.

    python -m benchmarks enhance
    python -m benchmarks.enhance [--only srvgg ddcolor rrdbnet] [--num-images 8]

Both sides read the same PNG files, use the same seeded random weights (they tell cost and rounding,
nothing about pictures) and as many threads, and write PNG files. Official: RealESRGANer (tile=0,
and pre_pad=0 as its script calls it) with `enhance` of one picture after the other; for DDColor
what its pipeline's `process` does, on the plain network: fp32, spectral norms computed in every
pass, the full-size map of every colour query. Ours: what the stage runs, decoding ahead, networks
in bf16 where the CPU computes in it, writing behind. The sides take turns, so that a machine whose
load changes slows both; processor time is given too: on a busy machine only that is a property of
the code.

The ceiling is the bare network on tensors, at the same precision and batches, as many side by side
as ours, nothing decoded or written.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.clock import in_turns, peak_memory
from benchmarks.processor import bf16_gain, bf16_instructions
from benchmarks.rows import LEAST_SHARE, Row, seconds_of, table

_SEED = 0
_BATCH = 1
_NUM_ROUNDS = 2
_NUM_FIRST = 4
_FACE_PX = {"rrdbnet": 128, "srvgg": 128, "ddcolor": 256}
_NUM_FACES = {"rrdbnet": (6, 2), "srvgg": (48, 12), "ddcolor": (32, 8)}
"""Of a round: ours, and the official way."""
_WANTED = {"rrdbnet": 5.0, "srvgg": 6.0, "ddcolor": 2.5}
_TITLES = {
    "rrdbnet": "enhance: RRDBNet x4, 128 px",
    "srvgg": "enhance: SRVGG x4, 128 px",
    "ddcolor": "enhance: DDColor tiny, 256 px",
}


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
    """Print the rows, or some of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance")
    parser.add_argument("--only", nargs="+", choices=list(_TITLES), default=list(_TITLES))
    parser.add_argument("--num-images", type=int, help="By default as many as take a while.")
    options = parser.parse_args()
    print(table(list(rows(tuple(options.only), options.num_images))))


def rows(names: tuple[str, ...] = tuple(_TITLES), num_images: int | None = None) -> Iterator[Row]:
    """Yield a row for each network.

    Args:
        names: Of the networks; keys of the titles.
        num_images: Of a round; None: as many as take a while.
    """
    import torch

    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.enhance.engine import choose_precision

    set_num_threads(None)
    precision = choose_precision("bf16", torch.device("cpu"))
    about = (
        f"random weights: cost and rounding only; {torch.get_num_threads()} threads on both sides; "
        f"{bf16_instructions()}, a matrix product in it is {bf16_gain():.1f} times as fast as fp32"
    )
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            yield _row(name, Path(folder), precision, num_images, about)


def _row(name: str, folder: Path, precision, num_images: int | None, about: str) -> Row:
    num_ours, num_official = _NUM_FACES[name]
    if num_images is not None:
        num_ours, num_official = num_images, min(num_official, num_images)
    paths = _write_faces(folder, _FACE_PX[name], num_ours)
    sides = _ddcolor(folder, precision) if name == "ddcolor" else _esrgan(name, folder, precision)
    faces = [_read(path) for path in paths[:2]]
    # Before anything is timed, so that no import and no first call is; and first of all, so that
    # what the official way holds is not in the figure.
    with peak_memory() as peak:
        sides.ours(paths[:_NUM_FIRST], folder)
    psnr_db = _psnr_db(sides.fast(faces), sides.exact(faces))
    if name != "rrdbnet":  # whose passes take so long that a first one is as good as another
        sides.official(paths[0], folder)

    def official() -> None:
        for path in paths[:num_official]:
            sides.official(path, folder)

    clocks = in_turns(
        {
            "bare": (partial(sides.bare, num_ours), num_ours),
            "official": (official, num_official),
            "ours": (partial(sides.ours, paths, folder), num_ours),
        },
        _NUM_ROUNDS,
    )
    return Row(
        _TITLES[name],
        "images",
        seconds_of(clocks["ours"]),
        "official loop" if name == "ddcolor" else "RealESRGANer",
        seconds_of(clocks["official"]),
        "bare network",
        seconds_of(clocks["bare"]),
        _WANTED[name],
        LEAST_SHARE,
        peak.mib,
        note=f"ours in {precision}, {psnr_db:.1f} dB PSNR from fp32; {about}",
    )


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
        official, _stage(ours, precision), bare,
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
        official, _stage(ours, precision), bare,
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


def _stage(network, precision):
    """Return what the stage does with a chunk of files: decode ahead, compute, write behind."""
    import torch

    from agetf_pipeline.config.enhance import EnhanceConfig
    from agetf_pipeline.enhance.assemble import build_enhancer
    from agetf_pipeline.enhance.colour import Colouriser

    colours = isinstance(network, Colouriser)
    config = EnhanceConfig(
        target_px=256 if colours else 512,
        colourise="always" if colours else "never",
        super_resolve="never" if colours else "always",
        batch_size=_BATCH,
        precision=precision,
    )
    # Of the two networks that it takes, the other one is not called.
    colouriser = network if colours else Colouriser(torch.nn.Identity(), 32, "none")
    enhancer = build_enhancer(config, colouriser, network, torch.device("cpu"))
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


if __name__ == "__main__":
    main()
