"""The tiny Janus that a workspace trains: transformers' architecture at a size for two cores.

One training, two tasks on one image encoder: the number after the age question on labelled faces,
and the words after the caption question on freshly drawn faces whose attributes are known (the
labelled faces' attributes are not).

Shapes: B batch, H W C image, S side, T image tokens, P prompt tokens, K tokens of an answer,
A answers, V vocabulary, D width of the language model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agetf_pipeline.config.caption import CaptionConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, StageError
from agetf_pipeline.core.fitting import FitSettings, fine_tune
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.tuning import FitResult, Tuning, Watcher
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.data.images import resize_rgb
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.answer_trie import build_trie
from agetf_pipeline.experts.janus import (
    AGE_QUESTION,
    CODE_VERSION,
    Janus,
    JanusProcessor,
)
from agetf_pipeline.experts.janus_files import TRAINED_HERE

CAPTION_SEED = 900_000_000
"""First seed of the faces that teach captions: far from those of any corpus."""

_IMAGE, _BEGIN, _END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", _IMAGE, _BEGIN, _END, "<|User|>", "<|Assistant|>")
_TEMPLATE = (
    "{% for message in messages %}<|User|>:{% for item in message.content %}"
    "{% if item.type == 'image' %} <image_placeholder>{% else %} {{ item.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
_PATCHES_A_SIDE = 4
_WIDTH = 128
_INIT_STD = 0.08
_LABEL_SIGMA_YEARS = 2.0
_CAPTION_WEIGHT = 3.0
_MAX_WHITENED = 400
_IGNORED = -100


def build_processor(
    input_px: int, texts: list[str], individual_digits: bool = False
) -> JanusProcessor:
    """Return a processor with a word-level tokenizer: the words of `texts`, numbers, marks.

    Spaces belong to the word after them, so that decoding gives back the text.

    Args:
        input_px: Side of the images.
        texts: What the vocabulary has to spell.
        individual_digits: A token per digit, as the published tokenizer has it, instead of one per
            number. The tiny network learns ages much faster as one choice among 101: with digits
            "3" begins both 3 and 34.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import JanusImageProcessor, PreTrainedTokenizerFast
    from transformers import JanusProcessor as Processor

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=individual_digits),
        ]
    )
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    words |= {str(number) for number in range(10 if individual_digits else NUM_AGE_BINS)}
    words |= {"▁", ":", "▁:"}
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": _IMAGE, "boi_token": _BEGIN, "eoi_token": _END,
                              "user_token": "<|User|>", "assistant_token": "<|Assistant|>"},
    )  # fmt: skip
    return Processor(
        JanusImageProcessor(size={"height": input_px, "width": input_px}),
        fast,
        chat_template=_TEMPLATE,
        num_image_tokens=_PATCHES_A_SIDE**2,
    )


def tiny_config(input_px: int, processor: JanusProcessor, num_layers: int = 1) -> Any:
    """Return the architecture of the tiny Janus: 4 x 4 patches, one layer on either side.

    Source: docs/decisions/0006-janus.md has what was tried.
    """
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    tokenizer = processor.tokenizer
    return JanusConfig(
        vision_config=JanusVisionConfig(
            hidden_size=_WIDTH, num_hidden_layers=num_layers, num_attention_heads=8,
            mlp_ratio=2.0, image_size=input_px, patch_size=input_px // _PATCHES_A_SIDE,
            projection_dim=_WIDTH, depth=2, num_image_tokens=processor.num_image_tokens,
            initializer_range=_INIT_STD,
        ),
        # Never used (it draws images), but part of the class: as small as its group norms permit.
        vq_config=JanusVQVAEConfig(
            base_channels=32, channel_multiplier=[1], num_res_blocks=1, latent_channels=4,
            embed_dim=4, num_embeddings=8, projection_dim=8, image_token_embed_dim=_WIDTH,
            num_hidden_layers=1,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=_WIDTH, intermediate_size=2 * _WIDTH,
            num_hidden_layers=num_layers, num_attention_heads=16, num_key_value_heads=16,
            max_position_embeddings=512, initializer_range=_INIT_STD, tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=tokenizer.image_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip


def build_tiny_janus(
    input_px: int,
    texts: list[str],
    seed: int,
    individual_digits: bool = False,
    num_layers: int = 1,
) -> Janus:
    """Return an untrained tiny Janus that knows the words of `texts`.

    Args:
        input_px: Side of the images, a multiple of 4.
        texts: Questions and captions.
        seed: Of the weights.
        individual_digits: See `build_processor`.
        num_layers: Of the image encoder, and of the language model.

    Raises:
        ConfigError: The side cannot be cut into 4 patches.
    """
    from transformers import JanusForConditionalGeneration

    if input_px % _PATCHES_A_SIDE:
        raise ConfigError(
            f"Expected train_experts.experts.janus.input_px to be a multiple of {_PATCHES_A_SIDE}; "
            f"found {input_px}. Take 64."
        )
    processor = build_processor(input_px, texts, individual_digits)
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(tiny_config(input_px, processor, num_layers))
    model.model.vqmodel.requires_grad_(False)
    with torch.no_grad():
        # Heads that start by looking at different places learn where things are much sooner.
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(2.0)
            layer.self_attn.k_proj.weight.mul_(2.0)
        model.model.vision_model.embeddings.position_embedding.weight.mul_(1.0 / _INIT_STD)
    return Janus(model.eval(), processor, f"untrained-{CODE_VERSION}", "nothing")


def whiten_patches(janus: Janus, pixels_BCHW: Tensor) -> None:
    """Set the patch embedding to the whitened principal components of pictures' patches.

    Light and shade hold nearly all variance of a face; wrinkles hold next to none. Starting with
    unit variance in every component, the network need not spend its training on finding them.
    """
    embedding = janus.model.model.vision_model.embeddings.patch_embedding
    side = embedding.kernel_size[0]
    patches = F.unfold(pixels_BCHW, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(dim=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    values, vectors = torch.linalg.eigh(covariance)
    kept = embedding.out_channels
    scaled = vectors[:, -kept:] / (values[-kept:].clamp_min(0) + 0.01).sqrt()
    with torch.no_grad():
        embedding.weight.copy_(scaled.T.reshape(embedding.weight.shape))
        embedding.bias.copy_(-(scaled.T @ mean))


@dataclass(frozen=True)
class DrawnFaces:
    """Faces that are in no corpus: uint8 (N, S, S, 3) RGB, ages float32 (N,), N captions."""

    faces_NHWC: np.ndarray
    ages_years: np.ndarray
    captions: list[str]


def draw_faces(num_faces: int, size_px: int) -> DrawnFaces:
    """Draw faces at ages from 1 to 95 years, and say what is on them."""
    from agetf_pipeline.synthetic.captions import describe
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    ages = np.random.default_rng(CAPTION_SEED).uniform(1.0, 95.0, num_faces)
    faces = np.empty((num_faces, size_px, size_px, 3), np.uint8)
    captions = []
    for index, age in enumerate(track(ages.tolist(), "draw faces for captions")):
        identity = draw_identity(CAPTION_SEED + index)
        faces[index] = draw_face(identity, age, size_px)
        captions.append(describe(identity, age))
    return DrawnFaces(faces, ages.astype(np.float32), captions)


def train_tiny_janus(
    faces_NHWC: np.ndarray,
    ages_years: np.ndarray,
    expert: ExpertConfig,
    caption: CaptionConfig,
    checkpoint: Path,
    identity: str,
    out_dir: Path,
    card: dict[str, Any],
    seed: int,
    device: torch.device,
    watcher: Watcher | None = None,
) -> FitResult:
    """Train a tiny Janus on both tasks and write its folder; see `experts.janus.fit_janus`."""
    if not len(faces_NHWC):
        raise StageError(
            "Expected labelled faces to train the tiny Janus; found none. Add CAF shards with "
            "ages, or name trained weights in train_experts.experts.janus.weights."
        )
    drawn = draw_faces(caption.num_train_faces, expert.input_px)
    texts = [f" {text}" for text in (AGE_QUESTION, caption.prompt, *drawn.captions)]
    janus = build_tiny_janus(expert.input_px, texts, seed)
    resized = np.stack([resize_rgb(face, expert.input_px) for face in faces_NHWC])
    # Drawn ages teach nothing about photographs.
    use_drawn_ages = card.get("trained_on") == "synthetic"
    tasks = _Tasks(janus, resized, ages_years, drawn, caption.prompt, use_drawn_ages)
    whiten_patches(janus, tasks.faces[:_MAX_WHITENED])
    settings = FitSettings(expert.num_steps, expert.batch_size, expert.lr, seed=seed)
    own_settings = {
        "expert": expert.settings(),
        "prompt": caption.prompt,
        "num_train_faces": caption.num_train_faces,
    }
    own_identity = fingerprint(own_settings, CODE_VERSION, {"caller": identity})
    janus.model.to(device)
    result = fine_tune(
        janus.model, tasks.loss, len(tasks.ages), settings, checkpoint, own_identity, "janus",
        Tuning(watcher=watcher),
    )  # fmt: skip
    # The weights last: where they are, the rest of the folder is.
    out_dir.mkdir(parents=True, exist_ok=True)
    janus.model.config.save_pretrained(out_dir)
    janus.processor.save_pretrained(out_dir)
    own_card = {
        "num_caption_faces": len(drawn.captions),
        "num_age_faces": len(tasks.ages),
        "final_loss": round(float(np.mean(result.losses[-20:])), 4),
    }
    save_weights(out_dir / TRAINED_HERE, janus.model, {**card, **own_card})
    checkpoint.unlink(missing_ok=True)
    return result


class _Tasks:
    """The data of both tasks as tensors, and the loss of a batch."""

    def __init__(
        self,
        janus: Janus,
        faces_NHWC: np.ndarray,
        ages_years: np.ndarray,
        drawn: DrawnFaces,
        caption_prompt: str,
        use_drawn_ages: bool,
    ) -> None:
        self.janus = janus
        self.prompt = caption_prompt
        self.faces = janus.pixels(faces_NHWC)
        self.ages = torch.tensor(np.asarray(ages_years), dtype=torch.float32)
        self.drawn = janus.pixels(drawn.faces_NHWC) if drawn.captions else self.faces[:0]
        if use_drawn_ages:
            self.faces = torch.cat([self.faces, self.drawn])
            self.ages = torch.cat([self.ages, torch.from_numpy(drawn.ages_years)])
        stop = janus.stop_ids
        # Trained on the spelling without a space; scored with both.
        self.trie = build_trie([[janus.encode(str(age))] for age in range(NUM_AGE_BINS)], stop)
        rows = [[*janus.encode(f" {text}"), stop[0]] for text in drawn.captions]
        longest = max((len(row) for row in rows), default=0)
        self.captions = torch.tensor(
            [row + [_IGNORED] * (longest - len(row)) for row in rows], dtype=torch.int64
        )

    def loss(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean loss of both tasks on a batch."""
        faces = self.faces[indices]
        num_drawn = min(len(indices) // 2, len(self.drawn))
        chosen = torch.randint(max(1, len(self.drawn)), (num_drawn,), generator=generator)
        features = self.janus.image_features(torch.cat([faces, self.drawn[chosen]]))
        loss = self._age_loss(features[: len(faces)], self.ages[indices], generator)
        if num_drawn:
            caption_loss = self._caption_loss(features[len(faces) :], self.captions[chosen])
            loss = loss + _CAPTION_WEIGHT * caption_loss
        return loss

    def _age_loss(self, features_BTD: Tensor, ages: Tensor, generator: torch.Generator) -> Tensor:
        targets_BA = soft_ages(ages)
        # One answer a face, drawn from its targets, with whole target distributions along its
        # path: an unbiased estimate of the cross-entropy over the tree, at three tokens a face.
        answers_B = torch.multinomial(targets_BA, 1, generator=generator)[:, 0]
        paths = [self.trie.paths(int(answer))[0] for answer in answers_B]
        longest = max(len(path) for path in paths)
        rows_BK = torch.tensor(
            [[0, *(node + 1 for node in path), *([0] * (longest - len(path)))] for path in paths]
        )
        used_BK = torch.tensor(
            [[True] * (len(path) + 1) + [False] * (longest - len(path)) for path in paths]
        )
        tokens_BK = torch.tensor((0, *self.trie.token_ids))[rows_BK[:, 1:]]
        logits_BKV = self._answer_logits(features_BTD, AGE_QUESTION, tokens_BK)
        targets_BNV = self.trie.next_token_targets(targets_BA, logits_BKV.shape[-1])
        targets_BKV = targets_BNV[torch.arange(len(rows_BK))[:, None], rows_BK]
        loss_BK = -(targets_BKV.to(logits_BKV.device) * logits_BKV.log_softmax(-1)).sum(-1)
        return (loss_BK * used_BK.to(loss_BK.device)).sum() / len(rows_BK)

    def _caption_loss(self, features_BTD: Tensor, tokens_BK: Tensor) -> Tensor:
        logits_BKV = self._answer_logits(features_BTD, self.prompt, tokens_BK[:, :-1].clamp_min(0))
        return F.cross_entropy(
            logits_BKV.flatten(0, 1),
            tokens_BK.flatten().to(logits_BKV.device),
            ignore_index=_IGNORED,
        )

    def _answer_logits(self, features_BTD: Tensor, question: str, tokens_BK: Tensor) -> Tensor:
        """Logits of the token after the prompt and after each of its K answer tokens."""
        model = self.janus.model
        prompt_BPD = self.janus.embed_prompt(features_BTD, question)
        tokens_BKD = model.get_input_embeddings()(tokens_BK.to(prompt_BPD.device))
        # Padding lies behind the answer, where causal attention never looks.
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([prompt_BPD, tokens_BKD], dim=1), use_cache=False
        ).last_hidden_state
        return model.lm_head(hidden[:, prompt_BPD.shape[1] - 1 :])


def soft_ages(ages_years: Tensor, sigma_years: float = _LABEL_SIGMA_YEARS) -> Tensor:
    """Return Gaussian-weighted answers around ages, float (B, 101), rows sum to 1."""
    bins_A = torch.arange(NUM_AGE_BINS, dtype=torch.float32)
    return (-0.5 * ((bins_A - ages_years[:, None]) / sigma_years) ** 2).softmax(dim=1)
