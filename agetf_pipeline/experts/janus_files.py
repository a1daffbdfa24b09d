"""The files of a Janus checkpoint: in transformers' format, or of the tiny one trained here."""

import json
from pathlib import Path
from typing import Any

import torch

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_weights, read_card

TRAINED_HERE = "weights.safetensors"
"""File of the tiny Janus that the workspace trains; published folders hold model*.safetensors."""


def load_folder(folder: Path, precision: str) -> tuple[Any, Any, str]:
    """Load network, processor, and what the weights were trained on, strictly and from disk alone.

    Raises:
        WeightsError: The folder is not a whole checkpoint, or its weights do not fit.
    """
    import transformers

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        processor = transformers.JanusProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if (folder / TRAINED_HERE).is_file():
            settings = transformers.JanusConfig.from_pretrained(folder, local_files_only=True)
            model: Any = transformers.JanusForConditionalGeneration(settings)
            load_weights(model, folder / TRAINED_HERE)
            trained_on = str(read_card(folder / TRAINED_HERE).get("trained_on", "unknown"))
            return model.to(dtype), processor, trained_on
        _check_tying(folder)
        loaded: Any = transformers.JanusForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            dtype=dtype, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"Expected a whole transformers-format Janus checkpoint at {folder}; found: {error}. "
            "Copy the complete folder (config.json, tokenizer and processor files, safetensors)."
        ) from error
    model, notes = loaded
    problems = {name: sorted(map(str, keys)) for name, keys in notes.items() if keys}
    if problems:
        raise WeightsError(
            f"Weights of {folder} do not fit JanusForConditionalGeneration: {problems}. "
            "Supply the files of one checkpoint, converted to transformers' format."
        )
    return model, processor, "published"


def _check_tying(folder: Path) -> None:
    """Refuse a checkpoint whose output head would silently be replaced by its embeddings."""
    from safetensors import safe_open

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tied = settings.get("tie_word_embeddings", True)
    heads = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (not a dict)
                if name.endswith(("lm_head.weight", "language_model.embed_tokens.weight")):
                    heads[name.split(".")[-2]] = stream.get_tensor(name)
    separate = len(heads) == 2 and not torch.equal(heads["lm_head"], heads["embed_tokens"])
    if tied and separate:
        raise WeightsError(
            f"Expected one matrix for embeddings and output head in {folder}, as its config.json "
            "says (tie_word_embeddings: true); found two different ones. Set "
            "tie_word_embeddings to false there, or supply the config of this checkpoint."
        )
