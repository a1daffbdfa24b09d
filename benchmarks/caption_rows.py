"""The stage `caption` beside transformers' own way and beside the bare network, on a CPU.

Ours is what a user runs: the stage over files, which decodes, captions, filters, embeds and writes,
with the batch of the configuration. The peer captions one image at a time in fp32, and makes no
embedding. The ceiling is the same network on tensors, in the precision and in the parts of ours.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import in_turns, peak_memory
from benchmarks.rows import LEAST_SHARE, Row, seconds_of

_PROMPT = "Describe the face."
_MAX_NEW_TOKENS = 32
_WANTED_TIMES = 3.0
_ROUNDS = 2
_LEAST_COSINE = 0.999
"""Of an image's embedding in bf16 to the one in fp32."""


class Bench:
    """Images, weights, and the three ways over them."""

    def __init__(
        self, folder: Path, janus: dict[str, Any], num_images: int, num_peer: int, face_px: int
    ) -> None:
        """Write the images, a partition a round.

        Args:
            folder: The workspace; the weights lie in it.
            janus: `train_experts.experts.janus` of the configuration.
            num_images: Of a round.
            num_peer: Of them, for the peer.
            face_px: Side of the pictures in their files.
        """
        import torch

        from agetf_pipeline.config import PipelineConfig
        from agetf_pipeline.core.devices import computes_bf16, set_num_threads
        from agetf_pipeline.core.workspace import Workspace
        from agetf_pipeline.experts.janus import janus_folder, load_janus
        from agetf_pipeline.experts.janus_files import load_folder

        self.precision = "bf16" if computes_bf16(torch.device("cpu")) else "fp32"
        runtime = {"device": "cpu", "precision": self.precision, "allow_unverified_weights": True}
        self.config = PipelineConfig.model_validate(
            {
                "runtime": runtime,
                "train_experts": {"experts": {"janus": janus}},
                "caption": {"prompt": _PROMPT, "max_new_tokens": _MAX_NEW_TOKENS,
                            "max_failed_fraction": 1.0},
            }
        )  # fmt: skip
        self.workspace, self.num_images, self.num_peer = Workspace(folder), num_images, num_peer
        set_num_threads(None)
        self.face_px, self.files = face_px, _write_images(self.workspace, num_images, face_px)
        self.round = 0
        self.official, self.processor, _ = load_folder(
            janus_folder(self.config, self.workspace), "fp32"
        )
        self.official.eval()
        self.janus = load_janus(self.config, self.workspace)
        self.said: dict[str, tuple[str, Any]] = {}
        self.peak_mib: float | None = None
        self._pixels: list[Any] | None = None

    def ours(self) -> None:
        """Run the stage over a partition that it has not seen."""
        from agetf_pipeline.stages import caption

        with peak_memory() as peak:
            caption.run(self.config, self.workspace, _partition(self.round))
        self.peak_mib = peak.mib
        self.round += 1

    def peer(self, num_images: int | None = None) -> None:
        """Caption some images as transformers' documentation of Janus does, in fp32."""
        import torch
        from PIL import Image

        content = [{"type": "image"}, {"type": "text", "text": _PROMPT}]
        for file in self.files[: num_images or self.num_peer]:
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            with Image.open(file) as image:
                inputs = self.processor(
                    text=[text], images=[image.convert("RGB")], return_tensors="pt"
                )
            with torch.inference_mode():
                output = self.official.generate(
                    **inputs, generation_mode="text", do_sample=False,
                    max_new_tokens=_MAX_NEW_TOKENS,
                )  # fmt: skip
            written = output[0, inputs["input_ids"].shape[1] :]
            words = self.processor.tokenizer.decode(written, skip_special_tokens=True)
            self.said[file.name] = " ".join(words.split()), inputs["pixel_values"]

    def bare(self, num_parts: int | None = None) -> None:
        """Run the network alone: image features, prompt, a step a token, text embedding."""
        import torch

        from agetf_pipeline.captions.captioner import _mean_hidden
        from agetf_pipeline.core.side_by_side import side_by_side
        from agetf_pipeline.experts.janus_writing import write_greedily

        janus = self.janus

        def run(pixels_BCHW: Any) -> None:
            with torch.inference_mode():
                features = janus.image_features(pixels_BCHW)
                prompt = janus.embed_prompt(features, _PROMPT)
                written = write_greedily(janus, prompt, _MAX_NEW_TOKENS)
                lengths = sorted((max(1, text.num_tokens) for text in written), reverse=True)
                _mean_hidden(janus, [[1] * length for length in lengths])

        with side_by_side(janus.device) as workers:
            for _ in workers.map(run, self._tensors()[:num_parts]):
                pass

    def _tensors(self) -> list[Any]:
        """Return the pixels of all images, in the parts that the stage has."""
        import torch

        from agetf_pipeline.data.images import load_faces
        from agetf_pipeline.stages.caption import _LEAST_PART

        if self._pixels is None:
            names = [self.workspace.relative(file) for file in self.files]
            faces = load_faces(self.workspace, names, self.janus.input_px)
            batch, threads = self.config.caption.batch_size, torch.get_num_threads()
            size = batch // threads if batch >= threads * _LEAST_PART else batch
            self._pixels = [
                self.janus.pixels(faces[at : at + size]) for at in range(0, len(faces), size)
            ]
        return self._pixels

    def agreement(self) -> tuple[float, float]:
        """Return how many captions are the peer's in fp32, and the least cosine of embeddings."""
        import torch

        from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
        from agetf_pipeline.data.tables import read_table

        rows = read_table(self.workspace, CAPTIONS, [_partition(1)])
        names = read_table(self.workspace, IMAGES, [_partition(1)]).select("image_id", "raw_name")
        by_name = {row["raw_name"]: row for row in rows.join(names, "image_id").to_dicts()}
        same, cosines = [], []
        for name, (words, pixels) in self.said.items():
            row = by_name[name]
            # An unfinished caption ends with its last whole sentence.
            same.append(words.startswith(row["raw_caption"] or ""))
            with torch.inference_mode():
                features = self.official.model.get_image_features(pixels, return_dict=True)
            exact = features.pooler_output[0].mean(dim=0).double().numpy()
            ours = np.array(row["image_embedding"], np.float64)
            cosines.append(exact @ ours / np.linalg.norm(exact) / np.linalg.norm(ours))
        return float(np.mean(same)), float(np.min(cosines))


def measure(bench: Bench, stage: str, note: str) -> Row:
    """Time the three ways in turns and return their row."""
    bench.ours()  # a partition of a few images: no first call of any is counted
    bench.bare(num_parts=2)
    bench.peer(1)
    clocks = in_turns(
        {
            "peer": (bench.peer, bench.num_peer),
            "ours": (bench.ours, bench.num_images),
            "bare": (bench.bare, bench.num_images),
        },
        _ROUNDS,
    )
    same, cosine = bench.agreement()
    return Row(
        stage,
        "captions",
        ours_s=seconds_of(clocks["ours"]),
        peer="transformers' generate(do_sample=False), one image at a time, fp32, no embeddings",
        peer_s=seconds_of(clocks["peer"]),
        ceiling="the bare network on tensors",
        ceiling_s=seconds_of(clocks["bare"]),
        wanted_times=_WANTED_TIMES,
        wanted_share=LEAST_SHARE,
        peak_mib=bench.peak_mib,
        holds=cosine >= _LEAST_COSINE,
        note=f"{note}, {bench.precision}, {bench.num_images} files of {bench.face_px} px in "
        f"batches of {bench.config.caption.batch_size} shared among the cores; ours makes "
        f"embeddings, too. Of {bench.num_peer} images {same:.0%} get the words that the peer "
        f"writes in fp32, embeddings have a cosine of at least {cosine:.5f} to fp32's (at least "
        f"{_LEAST_COSINE} wanted).",
    )


def rows() -> Iterator[Row]:
    """Yield the row of Janus-Pro-1B's proportions and that of the demo's network."""
    from agetf_pipeline.core.devices import prepare_process

    prepare_process()
    import transformers

    transformers.logging.set_verbosity_error()  # `generate` has remarks on every call
    # Random weights: nothing vouches for them, and nothing that they say is English.
    logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
    for make in (_published, _tiny):
        with tempfile.TemporaryDirectory() as folder:
            yield make(Path(folder))


def _published(folder: Path) -> Row:
    from benchmarks.captions import _CUT, _build_published

    janus = _build_published()
    weights = folder / "models" / "janus"
    janus.model.save_pretrained(weights)
    janus.processor.save_pretrained(weights)
    del janus  # it would count as memory of ours
    settings = {"size": "full", "input_px": 384, "weights": "models/janus"}
    bench = Bench(folder, settings, num_images=64, num_peer=4, face_px=512)
    return measure(
        bench,
        "caption: Janus-Pro-1B's proportions at a 24th",
        f"random weights, one layer of {_CUT} on either side and a {_CUT}th of the vocabulary; "
        f"they never end a caption: every side writes {_MAX_NEW_TOKENS} tokens",
    )


def _tiny(folder: Path) -> Row:
    from benchmarks.captions import demo_janus

    settings, *_ = demo_janus(folder)
    bench = Bench(folder, settings, num_images=512, num_peer=32, face_px=128)
    return measure(
        bench,
        "caption: the demo's Janus",
        "trained shortly on drawn faces, 64 px, 16 image tokens; captions end by themselves",
    )


def _partition(number: int) -> str:
    return f"caf/shard-{number:04d}"


def _write_images(workspace: Any, num_images: int, face_px: int) -> list[Path]:
    """Write drawn faces, and a table `images` of them for each run; return the files."""
    import polars as pl

    from agetf_pipeline.core.hashing import hash_file
    from agetf_pipeline.data.schemas import IMAGES
    from agetf_pipeline.data.tables import empty_frame, write_table
    from benchmarks.corpus import write_faces

    folder = workspace.raw_caf / "shard-0000"
    files = write_faces(folder, num_images, face_px)
    for number in range(1 + _ROUNDS):
        found = []
        for file in files if number else files[:2]:
            row = dict.fromkeys(IMAGES.schema.names)
            place = workspace.relative(file)
            row |= {"image_id": hash_file(file), "partition": _partition(number), "path": place}
            row |= {"face_path": place, "raw_name": file.name, "format": "JPEG", "mode": "RGB"}
            sides = ("stored_width_px", "stored_height_px", "width_px", "height_px")
            row |= dict.fromkeys(sides, face_px)
            found.append({**row, "num_bytes": file.stat().st_size, "is_grey": False, "flags": []})
        frame = pl.DataFrame(found, schema=empty_frame(IMAGES).schema).unique("image_id")
        write_table(workspace, IMAGES, _partition(number), frame.sort("image_id"))
    return files
