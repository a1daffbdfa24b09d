"""Reading ages: the stage predict beside the official loops and beside the bare networks.

    python -m benchmarks relabel
    python -m benchmarks.relabel [--only resnet50 vgg16 mivolo four jpeg] [--num-images 32]

ResNet50, VGG16 and MiVOLO-d1 (face alone, with the head of its spread) have their published sizes,
Janus its published shapes at a 24th; all have random weights: their ages mean nothing, their cost
does. Ours is the stage `predict` over image files with runtime.precision=bf16 (an expert whose ages
bf16 would move keeps fp32, as for any user). The networks are loaded beforehand, for every side;
making labels of the readings is not in it: `benchmarks tables` measures that, thousands of images a
second. Official is `relabel_peers`. The sides take turns.

The ceiling is what the hardware must do at the least: decode each file once, on as many threads,
and run the same networks in the same precision on tensors, side by side in the same manner. On a
CPU the two share the cores, so their times add up; the share of the networks alone stands in the
note.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.clock import in_turns, peak_memory
from benchmarks.rows import LEAST_SHARE, Row, seconds_of, table

_NUM_ROUNDS = 2
_NUM_OURS, _NUM_OFFICIAL = 32, 4
_SETS: dict[str, tuple[str, ...]] = {
    "resnet50": ("resnet50",),
    "vgg16": ("vgg16",),
    "mivolo": ("mivolo",),
    "four": ("janus", "mivolo", "resnet50", "vgg16"),
    "jpeg": ("janus", "mivolo", "resnet50", "vgg16"),
}
_TITLES = {
    "four": "relabel: the four experts",
    "jpeg": "relabel: the four experts, JPEG of 256-512 px",
}
_WANTED_TIMES = 3.0


def main() -> None:
    """Print the rows, or some of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relabel")
    parser.add_argument("--only", nargs="+", choices=list(_SETS), default=list(_SETS))
    parser.add_argument("--num-images", type=int, default=_NUM_OURS)
    options = parser.parse_args()
    print(table(list(rows(tuple(options.only), options.num_images))))


def rows(which: tuple[str, ...] = tuple(_SETS), num_images: int = _NUM_OURS) -> Iterator[Row]:
    """Yield a row for each set of experts.

    Args:
        which: Keys of the sets.
        num_images: That ours reads in a round.
    """
    import transformers

    from agetf_pipeline.core.devices import prepare_process, set_num_threads
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.experts.load import load_expert
    from benchmarks.relabel_networks import config_of, save_networks, write_files, write_table
    from benchmarks.relabel_peers import official_loop

    prepare_process()
    transformers.logging.set_verbosity_error()
    set_num_threads(None)
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace(Path(name))
        save_networks(workspace)
        files = {
            "png": write_files(workspace.raw_ffhq / "png", num_images, (1024,), "png"),
            "jpg": write_files(workspace.raw_ffhq / "jpg", num_images, (512, 384, 256), "jpg"),
        }
        names = sorted({name for one in which for name in _SETS[one]})
        config = config_of(Path(name), tuple(names))
        ours = {name: load_expert(config, workspace, name) for name in names}
        runtime = config.runtime.model_copy(update={"precision": "fp32"})
        exact = config.model_copy(update={"runtime": runtime})
        loops = {}
        for name in names:
            if name == "janus":  # one is kept by each process, in the precision asked for last
                from agetf_pipeline.experts import janus as kept

                kept._loaded.clear()
            loops[name] = official_loop(load_expert(exact, workspace, name))
        for one in which:
            some = files["jpg" if one == "jpeg" else "png"]
            write_table(workspace, some)
            its = [ours[name] for name in _SETS[one]]
            config = config_of(Path(workspace.root), _SETS[one])
            yield _row(one, config, workspace, its, [loops[e.name] for e in its], some)


def _row(
    one: str, config: Any, workspace: Any, experts: list, loops: list[Callable], files: list[Path]
) -> Row:
    official = files[:_NUM_OFFICIAL]

    def officially() -> None:
        for loop in loops:  # each network has a script of its own
            for path in official:
                loop(path)

    sides: dict[str, tuple[Callable[[], object], int]] = {
        "ours": (partial(_predict, config, workspace, experts), len(files)),
        "official": (officially, len(official)),
        "decode": (partial(_decode, files), len(files)),
        "bare": (_bare(config, experts, len(files)), len(files)),
    }
    for loop in loops:
        loop(files[0])
    sides["ours"][0]()
    with peak_memory() as peak:
        sides["ours"][0]()
    clocks = in_turns(sides, _NUM_ROUNDS)
    seconds = {name: seconds_of(clock) for name, clock in clocks.items()}
    decode, bare = seconds["decode"], seconds["bare"]
    ours = seconds["ours"]
    return Row(
        _TITLES.get(one, f"relabel: {one}"),
        "faces",
        ours,
        "one image at a time, fp32, each network decodes",
        seconds["official"],
        "decoding alone and the bare networks",
        (decode[0] + bare[0], decode[1] + bare[1]),
        _WANTED_TIMES,
        LEAST_SHARE,
        peak.mib,
        note=_note(experts, bare[0] / ours[0], 1000 * decode[1]),
    )


def _note(experts: list, share_of_bare: float, decode_ms: float) -> str:
    from benchmarks.relabel_peers import ANSWER_TOKENS

    how = ", ".join(f"{e.name} {'bf16' if _is_bf16(e) else 'fp32'}" for e in experts)
    text = f"Random weights; {how}"
    if not all(_is_bf16(e) for e in experts):
        text += " (bf16 would move an age of these weights by 0.25 years or more)"
    text += (
        f". Decoding is {decode_ms:.0f} ms of a core; of the bare networks alone it is "
        f"{share_of_bare:.0%}."
    )
    if any(e.name == "janus" for e in experts):
        text += (
            " Janus has the published shapes at a 24th; officially it writes "
            f"{ANSWER_TOKENS} tokens, which are parsed; ours scores all ages in one pass."
        )
    return text


def _is_bf16(expert: Any) -> bool:
    import torch

    if expert.name == "janus":
        return expert.janus.model.dtype == torch.bfloat16
    return "-bf16" in expert.version


def _predict(config: Any, workspace: Any, experts: list) -> None:
    """Run the stage over the table, from nothing, with networks that are loaded."""
    from agetf_pipeline.stages import predict

    shutil.rmtree(workspace.tables / "predictions", ignore_errors=True)
    shutil.rmtree(workspace.stats, ignore_errors=True)
    with (
        mock.patch.object(predict, "load_experts", return_value=experts),
        mock.patch.object(predict, "weights_hash", return_value="of weights"),
    ):
        report = predict.run(config, workspace, "ffhq_aging")
    assert report.status == "ran", report.status
    assert not report.counts["num_failed"], report.messages


def _decode(files: list[Path]) -> None:
    import torch

    from agetf_pipeline.data.images import read_rgb

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(read_rgb, files):
            pass


def _bare(config: Any, experts: list, num_images: int) -> Callable[[], None]:
    """Return what runs the networks on tensors, as many batches side by side as ours."""
    import torch

    from agetf_pipeline.core.side_by_side import side_by_side
    from agetf_pipeline.experts.batching import batch_sizes, num_side_by_side

    sizes = batch_sizes(config)
    whole = max(sizes.values())
    networks = [_network(expert) for expert in experts]
    inputs = []
    for expert in experts:
        side = config.train_experts.experts[expert.name].input_px
        faces = torch.randn(sizes[expert.name], 3, side, side)
        inputs.append(faces.contiguous(memory_format=torch.channels_last))
    device = torch.device("cpu")

    def read(num: int) -> None:
        for network, faces in zip(networks, inputs, strict=True):
            for start in range(0, num, len(faces)):
                network(faces[: num - start])

    def run() -> None:
        starts = range(0, num_images, whole)
        with side_by_side(device, num_side_by_side(config)) as workers:
            list(workers.map(read, (min(whole, num_images - start) for start in starts)))

    return run


def _network(expert: Any) -> Callable:
    """Return an expert's network alone, tensors in, in the expert's precision."""
    import torch

    if expert.name == "janus":
        from agetf_pipeline.experts.janus import AGE_QUESTION

        janus, trie = expert.janus, expert.janus.age_trie()

        def score(faces_NCHW: torch.Tensor) -> None:
            with torch.inference_mode():
                janus.answer_log_probs(janus.image_features(faces_NCHW), AGE_QUESTION, trie)

        return score
    fast = _is_bf16(expert)
    module = expert.inner.module if fast else expert.module

    def run(faces_NCHW: torch.Tensor) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            module(faces_NCHW)

    return run


if __name__ == "__main__":
    main()
