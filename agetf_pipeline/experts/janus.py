"""Janus-Pro through transformers' own classes: one network that reads ages and writes captions.

Ages are not generated and parsed: every answer 0..100 is scored at once (see `answer_trie`), so
the reading is a whole distribution, and says how likely the network was to answer a number at all.
(`free_text_janus` generates and parses, for those who ask for it.)

Shapes: B batch, H W C image, T image tokens, P prompt tokens, N trie nodes, A answers,
V vocabulary, D width of the language model.
"""

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.checkpoints import require_verified
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import ConfigError, DataError, WeightsError
from agetf_pipeline.core.hashing import hash_files
from agetf_pipeline.core.tuning import FitResult, Watcher
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.answer_trie import AnswerTrie, build_trie
from agetf_pipeline.experts.base import AgeExpert, Readings, readings_from_distribution
from agetf_pipeline.experts.janus_files import load_folder

# transformers' own annotations do not describe what its classes accept: checked by tests instead.
JanusForConditionalGeneration: TypeAlias = Any
JanusProcessor: TypeAlias = Any

_LOGGER = logging.getLogger(__name__)

CODE_VERSION = "1"
AGE_QUESTION = "How old is this person? Answer with the number of years."

_FINE_TUNING = ("init_weights", "frozen_fraction", "trunk_lr_factor", "validation_fraction")
_MAX_LOGITS = 1 << 25  # float32 values held at once: 128 MiB


@dataclass(frozen=True)
class Janus:
    """A loaded network with its processor.

    Attributes:
        model: transformers' network, in evaluation mode, on its device.
        processor: transformers' tokenizer and image processor of the same checkpoint.
        version: `<sha256[:12]>-<code version>` of the whole folder.
        trained_on: What the weights were trained on.
    """

    model: JanusForConditionalGeneration
    processor: JanusProcessor
    version: str
    trained_on: str
    _prompts: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _tries: list[AnswerTrie] = field(default_factory=list, repr=False)
    _lock: RLock = field(default_factory=RLock, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    @property
    def input_px(self) -> int:
        """Side of the pictures that the network sees."""
        return int(self.processor.image_processor.size["height"])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        generation = self.model.generation_config
        stop = None if generation is None else generation.eos_token_id
        stop = self.processor.tokenizer.eos_token_id if stop is None else stop
        return tuple(stop) if isinstance(stop, list) else (int(stop),)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without marks of beginning and end."""
        with self._lock:  # encoding sets the tokenizer up anew; two threads at it raise
            return self.processor.tokenizer.encode(text, add_special_tokens=False)

    def prompt_ids(self, question: str) -> Tensor:
        """Return the tokens of a question about one image, int64 (P,), image tokens in place."""
        if question not in self._prompts:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            blank = torch.zeros(3, 32, 32, dtype=torch.uint8)
            batch = self.processor(text=[text], images=[blank], return_tensors="pt")
            self._prompts[question] = batch["input_ids"][0]
        return self._prompts[question]

    def age_trie(self) -> AnswerTrie:
        """Return the tree of the answers 0..100, each with and without a leading space."""
        if not self._tries:
            forms = [[self.encode(str(age)), self.encode(f" {age}")] for age in range(NUM_AGE_BINS)]
            self._tries.append(build_trie(forms, self.stop_ids))
        return self._tries[0]

    def pixels(self, faces_BHWC: np.ndarray) -> Tensor:
        """Return faces as the network wants them, float32 (B, 3, S, S), by its own processor.

        Args:
            faces_BHWC: uint8 (B, H, W, 3), RGB.
        """
        if faces_BHWC.ndim != 4 or faces_BHWC.shape[3] != 3 or faces_BHWC.dtype != np.uint8:
            raise DataError(
                f"Expected faces as uint8 (B, H, W, 3); found {faces_BHWC.dtype} "
                f"{faces_BHWC.shape}. Read them with agetf_pipeline.data.images.load_faces."
            )
        images = list(torch.from_numpy(np.ascontiguousarray(faces_BHWC)).permute(0, 3, 1, 2))
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]

    def image_features(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the aligned features of images, (B, T, D), in the language model's space."""
        pixels_BCHW = pixels_BCHW.to(self.device, self.model.dtype)
        return self.model.model.get_image_features(pixels_BCHW, return_dict=True).pooler_output

    def embed_prompt(self, features_BTD: Tensor, question: str) -> Tensor:
        """Return the input embeddings of a question about each image, (B, P, D)."""
        ids_P = self.prompt_ids(question).to(self.device)
        embeds_PD = self.model.get_input_embeddings()(ids_P)
        embeds_BPD = embeds_PD.expand(len(features_BTD), -1, -1).clone()
        embeds_BPD[:, ids_P == self.model.config.image_token_id] = features_BTD.to(embeds_BPD.dtype)
        return embeds_BPD

    def answer_log_probs(self, features_BTD: Tensor, question: str, trie: AnswerTrie) -> Tensor:
        """Return log p of every answer of a tree, float32 (B, A), in one forward pass."""
        prompt_BPD = self.embed_prompt(features_BTD, question)
        num_prompt = prompt_BPD.shape[1]
        nodes_ND = self.model.get_input_embeddings()(
            torch.tensor(trie.token_ids, device=self.device)
        )
        hidden_BLD = self.model.model.language_model(
            inputs_embeds=torch.cat([prompt_BPD, nodes_ND.expand(len(prompt_BPD), -1, -1)], dim=1),
            attention_mask=trie.attention_mask(num_prompt, prompt_BPD.dtype).to(self.device),
            position_ids=trie.position_ids(num_prompt).to(self.device),
            use_cache=False,
        ).last_hidden_state[:, num_prompt - 1 :]
        # A real vocabulary has 100,000 tokens: logits of a whole batch would fill the memory.
        size = hidden_BLD.shape[1] * self.model.lm_head.out_features
        pieces = hidden_BLD.split(max(1, _MAX_LOGITS // size))
        return torch.cat(
            [
                trie.answer_log_probs(self.model.lm_head(piece).float().log_softmax(dim=-1))
                for piece in pieces
            ]
        )


class JanusExpert:
    """Ages read by Janus, as an `AgeExpert`."""

    name = "janus"

    def __init__(self, janus: Janus) -> None:
        self.janus = janus

    @property
    def version(self) -> str:
        """Checkpoint hash and code version."""
        return self.janus.version

    @property
    def trained_on(self) -> str:
        """What the weights were trained on."""
        return self.janus.trained_on

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read a batch of aligned faces, uint8 (N, H, W, 3) RGB of any square size."""
        if len(faces_NHWC) == 0:
            empty = np.empty((0, NUM_AGE_BINS), np.float32)
            return readings_from_distribution(empty, np.empty(0, np.float32))
        features_BTD = self.janus.image_features(self.janus.pixels(faces_NHWC))
        log_p_BA = self.janus.answer_log_probs(features_BTD, AGE_QUESTION, self.janus.age_trie())
        valid_B = torch.logsumexp(log_p_BA, dim=1).exp()
        return readings_from_distribution(
            log_p_BA.softmax(dim=1).cpu().numpy(), valid_B.cpu().numpy()
        )


LOADS_IN_PRECISION = True
"""As a kind of expert: its weights are in the precision asked for when they are loaded."""


def batch_share(input_px: int) -> int:
    """Return what a face costs beside one of a classifier, for the choice of batches.

    A published Janus keeps the activations of 576 image tokens and 101 answers; the tiny one has
    sixteen tokens.
    """
    return 8 if input_px >= 224 else 1


def load_expert(name: str, expert: ExpertConfig, path: Path, device: torch.device) -> AgeExpert:
    """Load Janus as an age expert, which scores or writes its answer; see `kinds.ExpertKind`."""
    janus = open_janus(path, device, expert.precision or "fp32")
    if expert.answer == "score":
        return JanusExpert(janus)
    from agetf_pipeline.experts.free_text_janus import JanusTextExpert

    return JanusTextExpert(janus)


_loaded: dict[tuple[str, str, str], Janus] = {}


def require_janus(config: PipelineConfig) -> ExpertConfig:
    """Return the settings of Janus.

    Raises:
        ConfigError: The config has no expert `janus`.
    """
    expert = config.train_experts.experts.get("janus")
    if expert is None:
        raise ConfigError(
            "Expected train_experts.experts.janus in the config: captions and Janus ages come "
            "from it. Add it, for example `janus: {size: tiny, input_px: 64}`."
        )
    return expert


def janus_folder(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the folder of the configured Janus: weights, config, tokenizer, image processor."""
    weights = require_janus(config).weights
    return workspace.models / "experts" / "janus" if weights is None else workspace.root / weights


def janus_version(config: PipelineConfig, workspace: Workspace) -> str:
    """Return the version of the configured Janus without loading it; see `load_janus`."""
    return f"{_folder_hash(janus_folder(config, workspace))[:12]}-{CODE_VERSION}"


def load_janus(config: PipelineConfig, workspace: Workspace) -> Janus:
    """Load the configured Janus, strictly and from this machine alone.

    Loaded once per process: age reading and captions share it.

    Raises:
        ConfigError: The config has no expert `janus`.
        WeightsError: The folder is not there or not complete, fails verification, or the weights
            do not fit.
    """
    precision = require_janus(config).precision or config.runtime.precision
    folder = janus_folder(config, workspace)
    if folder.is_dir():  # otherwise what is said next is of more use
        require_verified(folder, workspace, config.runtime)
    return open_janus(folder, resolve_device(config.runtime.device), precision)


def open_janus(folder: Path, device: torch.device, precision: str) -> Janus:
    """Load Janus from a folder, once per process; see `load_janus`."""
    key = (_folder_hash(folder), str(device), precision)
    if key not in _loaded:
        model, processor, trained_on = load_folder(folder, precision)
        version = f"{key[0][:12]}-{CODE_VERSION}"
        _loaded.clear()  # one network at a time: a published one fills most of the memory
        _loaded[key] = Janus(_prepared(model.to(device)), processor, version, trained_on)
    return _loaded[key]


def _prepared(model: JanusForConditionalGeneration) -> JanusForConditionalGeneration:
    """Return a network ready to compute, in the way that suits its device and precision."""
    from agetf_pipeline.experts.janus_attention import use_blocks
    from agetf_pipeline.experts.janus_packing import can_pack, pack

    model = model.eval()
    if can_pack(model):
        pack(model)
        use_blocks(model)
    return model


def fit_janus(
    config: PipelineConfig,
    workspace: Workspace,
    faces_NHWC: np.ndarray,
    ages_years: np.ndarray,
    checkpoint: Path,
    identity: str,
    out_dir: Path,
    card: dict[str, Any],
    watcher: Watcher | None = None,
) -> FitResult:
    """Train the tiny Janus to read ages and to caption; write its folder, the weights last.

    Args:
        config: The configuration; sections `train_experts` and `caption` count.
        workspace: The workspace.
        faces_NHWC: uint8 (N, H, W, 3) RGB, labelled faces.
        ages_years: float (N,), their ages.
        checkpoint: File of the unfinished training, removed at the end.
        identity: Fingerprint of the faces and settings.
        out_dir: Folder to write: weights, config, tokenizer, image processor.
        card: What the weights' card shall hold.
        watcher: Is told of the training.

    Returns:
        The losses.

    Raises:
        ConfigError: The config asks for a full-size Janus or for fine-tuning; neither is done here.
        StageError: There is no labelled face.
    """
    from agetf_pipeline.experts.janus_tiny_training import train_tiny_janus

    expert = require_janus(config)
    if expert.size != "tiny":
        raise ConfigError(
            "Expected trained weights for a full-size Janus; found train_experts.experts.janus."
            f"size={expert.size} without any. Set .weights to a transformers-format checkpoint "
            "folder, or .size to tiny."
        )
    plain = ExpertConfig()
    asked = [name for name in _FINE_TUNING if getattr(expert, name) != getattr(plain, name)]
    if asked:
        raise ConfigError(
            f"Expected no {asked} of train_experts.experts.janus: the tiny Janus is trained whole, "
            "from random weights, to its last step. Remove them."
        )
    return train_tiny_janus(
        faces_NHWC, ages_years, expert, config.caption, checkpoint, identity, out_dir, card,
        seed=config.train_experts.seed, device=resolve_device(config.runtime.device),
        watcher=watcher,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _hash_unchanged(folder: Path, _stamp: tuple[tuple[str, int, int], ...]) -> str:
    """Hash the files of a folder; once per process while names, sizes and times stay."""
    return hash_files((folder / name for name, _, _ in _stamp), folder)


def _folder_hash(folder: Path) -> str:
    """Return the sha256 of everything that is loaded from a folder."""
    files = sorted(
        path
        for pattern in ("*.safetensors", "*.json", "*.jinja")
        for path in folder.glob(pattern)
        if not path.name.startswith(".")
    )
    names = [path.name for path in files]
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise WeightsError(
            f"Expected a Janus folder at {folder} (config.json, tokenizer, processor and "
            f"safetensors in transformers' format); found {names}. Run `agetf train_experts` for "
            "the tiny one, or put a transformers-format checkpoint there and name it in "
            "train_experts.experts.janus.weights."
        )
    stamp = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _hash_unchanged(folder, stamp)
