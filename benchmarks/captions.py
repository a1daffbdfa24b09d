"""Captions: batches beside one image at a time, on a CPU.

    python -m benchmarks.captions [--only tiny published] [--rounds 3]

Two networks. `tiny` is the demo's Janus after a short training on drawn faces, so that
its captions end by themselves, each at its own length. `published` has the shapes of Janus-Pro-1B
(576 image tokens, layers and heads of the published widths) at a 24th: one layer of 24 on either
side and a 24th of the vocabulary, with random weights that never end a caption, in fp32 and bf16:
what it tells is cost, and how cost divides. Ours is what the stage calls: words, the filter of age
words, embeddings of image and caption. `words` is its words alone; the peer is transformers' own
`generate(do_sample=False)` on the same faces, words alone too. All sides run in every round, one
after the other, so that a machine whose load changes slows all; the figures are medians of rounds.
Parts are seconds of the processor, over all threads: on a busy machine only these are a property of
the code.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.rows import Row

_PARTS = ("tiny", "published")
_PROMPT = "Describe the face."
_CUT = 24
"""Of the published layers and vocabulary one part in so many is measured."""
_MAX_NEW_TOKENS = 32


def rows() -> Iterator[Row]:
    """Yield the rows of the table of `make bench`; see `caption_rows`."""
    from benchmarks import caption_rows

    yield from caption_rows.rows()


@dataclass
class Parts:
    """Processor seconds that a network spends on parts of captioning, by hooks on its modules."""

    seconds: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    _started_s: float = 0.0
    _last: str = "image"

    def watch(self, model: Any) -> None:
        """Follow a `JanusForConditionalGeneration`."""
        for name in ("vision_model", "aligner", "language_model"):
            self._follow(getattr(model.model, name), name)
        self._follow(model.lm_head, "lm_head")

    def clear(self) -> None:
        """Forget what was counted."""
        self.seconds, self.num_steps = dict.fromkeys(("image", "prefill", "decode", "text"), 0.0), 0

    def _follow(self, module: Any, name: str) -> None:
        def begin(module: Any, args: Any, kwargs: dict) -> None:
            self._last = self._part(name, kwargs)
            self.num_steps += name == "language_model" and self._last == "decode"
            self._started_s = time.process_time()

        def end(*_: Any) -> None:
            self.seconds[self._last] += time.process_time() - self._started_s

        module.register_forward_pre_hook(begin, with_kwargs=True)
        module.register_forward_hook(end)

    def _part(self, name: str, kwargs: dict) -> str:
        if name == "lm_head":
            return self._last
        if name != "language_model":
            return "image"
        if not kwargs["use_cache"]:
            return "text"
        return "decode" if kwargs["inputs_embeds"].shape[1] == 1 else "prefill"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.captions")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("stats/bench_captions.json"))
    options, _ = parser.parse_known_args()

    import torch
    import transformers

    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.core.files import write_json

    transformers.logging.set_verbosity_error()  # `generate` has remarks on every call
    set_num_threads(None)
    result: dict[str, Any] = {"synthetic": True, "num_threads": torch.get_num_threads()}
    print(f"drawn faces; {torch.get_num_threads()} threads, the same for every side")
    if "tiny" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            result["tiny"] = _tiny(Path(folder), options.rounds)
    if "published" in options.only:
        result |= _published(options.rounds)
    write_json(options.json, result)
    print(f"written: {options.json}")


def demo_janus(folder: Path) -> tuple[dict[str, Any], Any, Any, np.ndarray]:
    """Train the demo's Janus shortly; return its settings, config, workspace and the faces."""
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.experts.janus import fit_janus

    janus = {"size": "tiny", "input_px": 64, "num_steps": 120, "lr": 2e-3}
    config = PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu"},
            "train_experts": {"experts": {"janus": janus}},
            "caption": {"num_train_faces": 200, "prompt": _PROMPT},
        }
    )
    workspace, (faces_NHWC, ages_years) = Workspace(folder), _draw(64, 64)
    fit_janus(
        config, workspace, faces_NHWC, ages_years, workspace.state / "janus.pt",
        "benchmark", workspace.models / "experts" / "janus", {"trained_on": "synthetic"},
    )  # fmt: skip
    return janus, config, workspace, faces_NHWC


def _tiny(folder: Path, rounds: int) -> dict[str, Any]:
    from agetf_pipeline.experts.janus import load_janus

    _, config, workspace, faces_NHWC = demo_janus(folder)
    title = "the demo's Janus, 64 px, 16 image tokens, fp32"
    return _captions(
        title, load_janus(config, workspace), faces_NHWC, (8, 32), rounds, num_alone=24
    )


def _published(rounds: int) -> dict[str, Any]:
    import torch

    from agetf_pipeline.core.devices import computes_bf16

    janus, (faces, _) = _build_published(), _draw(8, 256)
    results = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and not computes_bf16(torch.device("cpu")):
            print("bf16: this CPU does not compute in it")
            continue
        janus.model.to(dtype)
        title = f"Janus-Pro-1B's shapes at a {_CUT}th, 384 px, 576 image tokens, {name}"
        results[f"published_{name}"] = {
            **_captions(title, janus, faces, (8,), rounds, num_alone=2), **_rates(janus)
        }  # fmt: skip
        _explain(results[f"published_{name}"])
    return results


def _build_published() -> Any:
    """Return a Janus with the published one's layers, one of 24, and random weights.

    Source: config.json of deepseek-community/Janus-Pro-1B (widths, heads, tokens, vocabulary).
    """
    import torch
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusVisionConfig,
        LlamaConfig,
    )

    from agetf_pipeline.experts.janus import Janus
    from agetf_pipeline.experts.janus_tiny import build_processor, tiny_config

    letters = "abcdefghijklmnop"
    size = 102_400 // _CUT
    words = [letters[n // 256] + letters[n // 16 % 16] + letters[n % 16] for n in range(4096)]
    processor = build_processor(384, [f" {_PROMPT}", *(f" {word}" for word in words)])
    processor.num_image_tokens = 576
    assert abs(len(processor.tokenizer) / size - 1) < 0.05
    vq_config = tiny_config(384, processor).vq_config.to_dict()
    config = JanusConfig(
        vision_config=JanusVisionConfig(
            hidden_size=1024, num_hidden_layers=24 // _CUT, num_attention_heads=16, mlp_ratio=4.0,
            image_size=384, patch_size=16, projection_dim=2048, depth=2, num_image_tokens=576,
        ),
        vq_config={**vq_config, "image_token_embed_dim": 2048},
        text_config=LlamaConfig(
            vocab_size=len(processor.tokenizer), hidden_size=2048, intermediate_size=5632,
            num_hidden_layers=24 // _CUT, num_attention_heads=16, num_key_value_heads=16,
            max_position_embeddings=16384, tie_word_embeddings=False,
            pad_token_id=processor.tokenizer.pad_token_id,
            bos_token_id=processor.tokenizer.bos_token_id,
            eos_token_id=processor.tokenizer.eos_token_id,
        ),
        image_token_id=processor.tokenizer.image_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    janus = Janus(JanusForConditionalGeneration(config).eval(), processor, "random", "nothing")
    with torch.no_grad():
        janus.model.lm_head.weight[list(janus.stop_ids)] = 0  # every side writes to the cap
    return janus


def _captions(
    title: str, janus: Any, faces_NHWC: np.ndarray, sizes: tuple[int, ...], rounds: int,
    num_alone: int,
) -> dict[str, Any]:  # fmt: skip
    """Time all sides in turn, print a table, and return it."""
    from agetf_pipeline.captions.captioner import caption_faces
    from agetf_pipeline.captions.versions import Request

    request, parts = Request(_PROMPT, _MAX_NEW_TOKENS), Parts()
    parts.watch(janus.model)

    def ours(faces: np.ndarray) -> list[tuple[str, int]]:
        names = [str(number) for number in range(len(faces))]
        captions = caption_faces(janus, faces, names, request)
        return [(caption.raw or "", caption.num_tokens) for caption in captions]

    calls: dict[str, Callable[[np.ndarray], Any]] = {"ours": ours}
    calls["words"] = lambda faces: _words(janus, faces)
    calls["generate"] = lambda faces: _generate(janus, faces)
    sides = [(who, size) for size in (1, *sizes) for who in calls]
    # Seconds an image, of wall clock and of the processor.
    each_s: dict[tuple[str, int], list[tuple[float, float]]] = {side: [] for side in sides}
    split: dict[int, list[dict[str, float]]] = {1: [], max(sizes): []}
    said: dict[int, list[tuple[str, int]]] = {}
    for call in calls.values():  # no import and no first call is counted
        parts.clear()
        call(faces_NHWC[:1])
    for _ in range(rounds):
        for who, size in sides:
            number = num_alone if size == 1 else max(size, len(faces_NHWC) // size * size)
            parts.clear()
            wall_s, processor_s, found = time.perf_counter(), time.process_time(), []
            for at in range(0, number, size):
                found += calls[who](faces_NHWC[at : at + size])
            took_s = (time.process_time() - processor_s) / number
            each_s[who, size].append(((time.perf_counter() - wall_s) / number, took_s))
            if who == "ours":
                said[size] = found
                if size in split:
                    steps = {"steps": parts.num_steps * size / number}
                    shares = {name: s / number for name, s in parts.seconds.items()}
                    split[size].append({**shares, "all": took_s, **steps})
    return _table(title, each_s, split, said)


def _draw(number: int, side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return faces, uint8 (N, H, W, 3), and their ages in years."""
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    ages_years = np.linspace(3.0, 90.0, number, dtype=np.float32)
    faces = [draw_face(draw_identity(n), float(age), side_px) for n, age in enumerate(ages_years)]
    return np.stack(faces), ages_years


def _words(janus: Any, faces_BHWC: np.ndarray) -> list[str]:
    """What `generate` does, our way."""
    import torch

    from agetf_pipeline.experts.janus_writing import write_greedily

    with torch.inference_mode():
        features_BTD = janus.image_features(janus.pixels(faces_BHWC))
        prompt_BPD = janus.embed_prompt(features_BTD, _PROMPT)
    return [text.text for text in write_greedily(janus, prompt_BPD, _MAX_NEW_TOKENS)]


def _generate(janus: Any, faces_BHWC: np.ndarray) -> list[str]:
    import torch

    ids = janus.prompt_ids(_PROMPT).expand(len(faces_BHWC), -1)
    output = janus.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids),
        pixel_values=janus.pixels(faces_BHWC).to(janus.model.dtype), generation_mode="text",
        do_sample=False, max_new_tokens=_MAX_NEW_TOKENS,
    )  # fmt: skip
    tokens = output[:, ids.shape[1] :]
    return [" ".join(t.split()) for t in janus.processor.tokenizer.batch_decode(tokens, True)]


def _table(
    title: str,
    each_s: dict[tuple[str, int], list[tuple[float, float]]],
    split: dict[int, list[dict[str, float]]],
    said: dict[int, list[tuple[str, int]]],
) -> dict[str, Any]:
    alone = said[1]
    lengths = [length for _, length in alone]
    result: dict[str, Any] = {
        name: {} for name in ("captions_per_s", "ratio", "processor_ratio", "parts_s", "same")
    }
    print(f"{title}; {min(lengths)} to {max(lengths)} tokens a caption")
    for (who, size), seconds in each_s.items():
        key, rate = f"{who}_{size}", 1 / median(wall_s for wall_s, _ in seconds)
        # Within a round: the load of the machine is nearly the same for both.
        rounds = list(zip(each_s["ours", 1], seconds, strict=True))
        ratio, processor_ratio = (
            median(one[clock] / each[clock] for one, each in rounds) for clock in (0, 1)
        )
        result["captions_per_s"][key], result["ratio"][key] = rate, ratio
        result["processor_ratio"][key] = processor_ratio
        label = "one at a time" if size == 1 else f"batches of {size}"
        print(
            f"  {who:9s} {label:14s} {rate:8.2f} captions/s  {ratio:6.2f} times one at a time by "
            f"the clock, {processor_ratio:6.2f} of the processor"
        )
    for size, rounds in split.items():
        middle = {name: median(each[name] for each in rounds) for name in rounds[0]}
        result["parts_s"][str(size)] = middle
        known = sum(middle[name] for name in ("image", "prefill", "decode", "text"))
        print(
            f"  of an image in {size:2d}: " + ", ".join(
                f"{name} {1000 * middle[name]:.1f} ms"
                for name in ("image", "prefill", "decode", "text")
            ) + f", the rest {1000 * (middle['all'] - known):.1f} ms"
        )  # fmt: skip
    for size, texts in said.items():
        # One at a time takes long: it wrote of the first faces only.
        pairs = [a == b for a, b in zip(alone, texts[: len(alone)], strict=True)]
        result["same"][str(size)] = sum(pairs) / len(pairs)
    print(f"  same captions in every batch: {min(result['same'].values()):.0%}", flush=True)
    return result


def _rates(janus: Any) -> dict[str, float]:
    """Return what bounds the network: the arithmetic of a matrix product, weights' bytes."""
    import torch

    dtype, seconds = janus.model.dtype, []
    tokens, weight = torch.rand(600, 2048).to(dtype), torch.rand(5632, 2048).to(dtype)
    for _ in range(10):
        started_s = time.process_time()
        torch.nn.functional.linear(tokens, weight)
        seconds.append(time.process_time() - started_s)
    layers = janus.model.model.language_model.layers
    weights = sum(weight.numel() for weight in layers.parameters())
    head = janus.model.lm_head.weight.numel()
    return {
        "matmul_gflops": 2 * 600 * 2048 * 5632 / median(seconds) / 1e9,
        "prefill_gflop": 2 * weights * len(janus.prompt_ids(_PROMPT)) / 1e9,
        "weights_gb": (weights + head) * dtype.itemsize / 1e9,
    }


def _explain(found: dict[str, Any]) -> None:
    """Print what prefill and decoding are bound by."""
    for size in ("1", "8"):
        part = found["parts_s"][size]
        step_s = part["decode"] * int(size) / part["steps"]
        share = found["prefill_gflop"] / part["prefill"] / found["matmul_gflops"]
        found[f"prefill_share_of_matmul_{size}"] = share
        found[f"decode_gb_per_s_{size}"] = found["weights_gb"] / step_s
        print(
            f"  in {size}: prefill at {share:.0%} of a bare matrix product's "
            f"{found['matmul_gflops']:.0f} GFLOP/s a core; a step of decoding {1000 * step_s:.1f} "
            f"ms, weights read at {found['weights_gb'] / step_s:.1f} GB/s a core"
        )
    one = found["parts_s"]["1"]
    found["ceiling"] = one["all"] / (one["image"] + one["prefill"])
    print(
        f"  ceiling of batches: {found['ceiling']:.2f} times one at a time, were all free but "
        "image features and prefill, which are arithmetic"
    )
    print(f"  (the published one: about {_CUT} times each of these times)", flush=True)


if __name__ == "__main__":
    main()
