"""Training of the tiny Janus: one image encoder, two tasks, and a read-out that helps the second.

The number after the age question is learnt on labelled faces; the words after the caption question
on freshly drawn faces whose attributes are known (the labelled faces' attributes are not).

Shapes: B batch, H W C image, S side, N drawn faces, T image tokens, P prompt tokens, K tokens of an
answer, A answers, V vocabulary, M attributes, C classes of all of them, D width of the language
model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.config.caption import CaptionConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.fitting import FitSettings, fine_tune
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.tuning import FitResult, Tuning, Watcher
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.data.images import resize_rgb
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.answer_trie import build_trie
from agetf_pipeline.experts.janus import AGE_QUESTION, CODE_VERSION, Janus
from agetf_pipeline.experts.janus_files import TRAINED_HERE
from agetf_pipeline.experts.janus_tiny import WIDTH, build_tiny_janus, whiten_patches

CAPTION_SEED = 900_000_000
"""First seed of the faces that teach captions: far from those of any corpus."""

_LABEL_SIGMA_YEARS = 2.0
_CAPTION_WEIGHT = 3.0
_MAX_WHITENED = 400
_IGNORED = -100
_WITHOUT_AGE_EVERY = 4
_BLACK_AND_WHITE_EVERY = 5  # no common factor: both kinds occur in colour and without


@dataclass(frozen=True)
class DrawnFaces:
    """Faces that are in no corpus.

    Attributes:
        faces_NHWC: uint8 (N, S, S, 3), RGB.
        ages_years: float32 (N,).
        captions: What is taught to be said of each, N; three in four with words of age.
        attributes: Glasses, hair colour and facial hair of each, N, as the captions name them.
    """

    faces_NHWC: np.ndarray
    ages_years: np.ndarray
    captions: list[str]
    attributes: list[tuple[str, str, str]]


def draw_faces(num_faces: int, size_px: int) -> DrawnFaces:
    """Draw faces at ages from 1 to 95 years, one in five black and white, and describe them."""
    from agetf_pipeline.synthetic.captions import describe, visible_attributes
    from agetf_pipeline.synthetic.degrade import GREY, degrade
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    ages = np.random.default_rng(CAPTION_SEED).uniform(1.0, 95.0, num_faces)
    faces = np.empty((num_faces, size_px, size_px, 3), np.uint8)
    captions, attributes = [], []
    for index, age in enumerate(track(ages.tolist(), "draw faces for captions")):
        identity = draw_identity(CAPTION_SEED + index)
        face = draw_face(identity, age, size_px)
        in_colour = index % _BLACK_AND_WHITE_EVERY > 0
        faces[index] = face if in_colour else degrade(face, [GREY], np.random.default_rng(0))
        with_age = index % _WITHOUT_AGE_EVERY > 0
        captions.append(describe(identity, age, with_age, in_colour))
        attributes.append(visible_attributes(identity, age, in_colour))
    return DrawnFaces(faces, ages.astype(np.float32), captions, attributes)


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
    # The read-out learns beside the network and is left behind.
    trained = nn.ModuleDict({"janus": janus.model, "readout": tasks.readout}).to(device)
    result = fine_tune(
        trained, tasks.loss, len(tasks.ages), settings, checkpoint, own_identity, "janus",
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
    """The data of both tasks as tensors, and the loss of a batch.

    Attributes:
        faces: float32 (., 3, S, S): the labelled ones, then the drawn ones where these teach ages.
        ages: float32, one a face.
        drawn: float32 (N, 3, S, S).
        readout: Linear, from the mean of a face's image tokens to its attributes.
    """

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
        self.num_labelled = len(self.faces)
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
        self.classes_NM, self.num_classes = _number_classes(drawn.attributes)
        self.readout = nn.Linear(WIDTH, sum(self.num_classes) or 1)

    def loss(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean loss of both tasks on a batch."""
        num_faces, num_drawn = len(indices), min(len(indices) // 2, len(self.drawn))
        chosen = torch.randint(max(1, len(self.drawn)), (num_drawn,), generator=generator)
        pixels = torch.cat([self.faces[indices], self.drawn[chosen]])
        features = self.janus.image_features(pixels)
        loss = self._age_loss(features[:num_faces], self.ages[indices], generator)
        if num_drawn:
            captioned = features[num_faces:]
            loss = loss + _CAPTION_WEIGHT * self._caption_loss(captioned, self.captions[chosen])
            drawn = torch.cat([indices - self.num_labelled, chosen])
            loss = loss + self._attribute_loss(features[drawn >= 0], drawn[drawn >= 0])
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

    def _attribute_loss(self, features_BTD: Tensor, drawn_B: Tensor) -> Tensor:
        """Cross-entropy of the attributes, read off the mean image token; summed over attributes.

        What a word of a caption has to teach the image encoder goes through the language model's
        attention, which has to find the place first. This path is straight. It reads no word of
        age: the mean is the embedding that is cached, and is not made to tell the age.
        """
        logits_BC = self.readout(features_BTD.mean(dim=1))
        classes_BM = self.classes_NM[drawn_B].to(logits_BC.device)
        parts = logits_BC.split(self.num_classes, dim=1)
        losses = [F.cross_entropy(part, classes_BM[:, m]) for m, part in enumerate(parts)]
        return torch.stack(losses).sum()

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


def _number_classes(rows: list[tuple[str, str, str]]) -> tuple[Tensor, list[int]]:
    """Return each row's class per attribute, int64 (N, M), and the number of classes of each."""
    names = [sorted(set(column)) for column in zip(*rows, strict=True)]
    classes = [
        [known.index(value) for known, value in zip(names, row, strict=True)] for row in rows
    ]
    return torch.tensor(classes, dtype=torch.int64), [len(known) for known in names]


def soft_ages(ages_years: Tensor, sigma_years: float = _LABEL_SIGMA_YEARS) -> Tensor:
    """Return Gaussian-weighted answers around ages, float (B, 101), rows sum to 1."""
    bins_A = torch.arange(NUM_AGE_BINS, dtype=torch.float32)
    return (-0.5 * ((bins_A - ages_years[:, None]) / sigma_years) ** 2).softmax(dim=1)
