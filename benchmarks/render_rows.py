"""Rendering beside a lower bound of the published generator and beside the bare network, on a CPU.

The published generator's code has no licence, and is not ours to run or to write again. What stands
in for it are plain convolutions of 512 channels at 128 px, one face at a time in fp32: as many
operations as were counted of it, 429.8 GFLOP a rendering. No network spends operations faster, so
the real one takes longer (130 processor seconds for ten ages were measured once, on two cores). Its
age enters at the input, so that ten ages cost ten whole passes.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.clock import Clock, in_turns, peak_memory
from benchmarks.rows import LEAST_SHARE, Row, seconds_of

_PUBLISHED_GFLOP = 4298.0
"""Of the published generator for ten ages of a face at 128 px."""
_WANTED_TIMES = 30.0
"""By processor seconds."""
_ROUNDS = 5
_NUM_FACES = 16


def rows() -> Iterator[Row]:
    """Yield the row of one face on all cores, and that of many faces on a core each."""
    from agetf_pipeline.core.devices import prepare_process

    prepare_process()
    import torch

    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.core.devices import computes_bf16, set_num_threads
    from benchmarks.render import _faces, _model

    set_num_threads(None)
    precision = "bf16" if computes_bf16(torch.device("cpu")) else "fp32"
    renderer = Renderer(_model("base-128"), precision=precision)
    faces_NHWC = _faces(_NUM_FACES, renderer.size_px)
    for number, where in ((1, "one face on all cores"), (_NUM_FACES, "a face a core")):
        yield _row(renderer, faces_NHWC[:number], where)


def _row(renderer: Any, faces_NHWC: Any, where: str) -> Row:
    from benchmarks.render import _AGES_YEARS

    number = len(faces_NHWC)
    ours = partial(renderer.render, faces_NHWC, _AGES_YEARS, side_by_side=number > 1)
    bare, (convolve, gflop) = _bare(renderer, faces_NHWC), _convolution()
    for work in (ours, bare, convolve):  # no first call is counted
        work()
    repeats = max(1, 4 // number)
    with peak_memory() as peak:
        ours()
    clocks = in_turns(
        {
            "ours": (lambda: [ours() for _ in range(repeats)], number * repeats),
            "bare": (lambda: [bare() for _ in range(repeats)], number * repeats),
            "peer": (convolve, 1),
        },
        _ROUNDS if number == 1 else 2,
    )
    peer_s = _scaled(clocks["peer"], _PUBLISHED_GFLOP / gflop)
    ours_s = seconds_of(clocks["ours"])
    return Row(
        f"render: ten ages, base-128, {where}",
        "faces x 10 ages",
        ours_s=ours_s,
        peer="as many operations as the published generator's, in plain convolutions, fp32",
        peer_s=peer_s,
        ceiling="the bare network on float tensors",
        ceiling_s=seconds_of(clocks["bare"]),
        wanted_share=LEAST_SHARE,
        peak_mib=peak.mib,
        holds=peer_s[1] >= _WANTED_TIMES * ours_s[1],
        note=f"Random weights, {renderer.precision}, {number} face(s) a call. {_WANTED_TIMES:g} "
        "times fewer processor seconds than the peer are wanted. The peer is a lower bound: "
        f"{gflop:.1f} GFLOP in a 3x3 convolution of 512 channels at 128 px are timed, and taken "
        f"{_PUBLISHED_GFLOP / gflop:.1f} times for the 4,298 GFLOP of ten ages that were counted "
        "of the published generator, whose code has no licence and is not run here.",
    )


def _bare(renderer: Any, faces_NHWC: Any) -> Any:
    """Return the network on float tensors, in the precision and with the threads of ours."""
    import torch

    from agetf_pipeline.age_transformer.renderer import to_tensor
    from agetf_pipeline.core.side_by_side import map_batches
    from benchmarks.render import _AGES_YEARS

    faces = [to_tensor(face[None]) for face in faces_NHWC]
    ages = torch.tensor([_AGES_YEARS], dtype=torch.float32)

    def run(face: Any) -> None:
        with renderer._inference():
            renderer._network(face, ages)

    return lambda: list(map_batches(run, faces, renderer.device))


def _convolution() -> tuple[Any, float]:
    """Return a convolution in fp32 as the published decoder's widest, and its GFLOP."""
    import torch

    channels, side_px = 512, 128
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, channels, side_px, side_px)

    def run() -> None:
        with torch.inference_mode():
            layer(x)

    return run, 2 * 9 * channels**2 * side_px**2 / 1e9


def _scaled(clock: Clock, times: float) -> tuple[float, float]:
    wall_s, processor_s = seconds_of(clock)
    return wall_s * times, processor_s * times
