"""Writing captions with Janus, and the embeddings kept beside them.

Shapes: B batch, H W C image, T image tokens, P prompt tokens, K caption tokens, D width of the
language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.captions.age_words import remove_age_words
from agetf_pipeline.captions.versions import Request
from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.experts.janus import Janus
from agetf_pipeline.experts.janus_writing import Written, write_drawn, write_greedily

_WORK = Work(
    "captioning",
    "caption.batch_size",
    "Set runtime.precision=bf16 (half the memory), or lower caption.max_new_tokens.",
)
_MAX_PADDING = 0.2
"""Of the longest text that is embedded at once with others: the share that a shorter one lacks."""


@dataclass(frozen=True)
class Caption:
    """What Janus says of one face.

    Attributes:
        raw: As it was written, or None where nothing was.
        clean: Without words of age; None where nothing is left.
        num_tokens: Written by the network before its end or its cut; the raw caption may have fewer
            where its last sentence is not whole.
        finished: Whether the network came to its end by itself.
        image_embedding: float16 (D,), mean of the aligned image features; None where not finite.
        text_embedding: float16 (D,), mean of the last hidden states over the clean caption; None
            where there is none.
        token_grid: float16 (T, D), the aligned image features; None where they were not asked for.
        reason: None, or why there is no usable caption.
    """

    raw: str | None
    clean: str | None
    num_tokens: int
    finished: bool
    image_embedding: np.ndarray | None
    text_embedding: np.ndarray | None
    token_grid: np.ndarray | None
    reason: str | None


def caption_faces(
    janus: Janus,
    faces_BHWC: np.ndarray,
    image_ids: Sequence[str],
    request: Request,
    with_grid: bool = False,
) -> list[Caption]:
    """Caption a batch of faces; where the memory does not hold it, half of it at a time.

    Args:
        janus: The network.
        faces_BHWC: uint8 (B, H, W, 3), RGB.
        image_ids: B names: drawn words depend on an image's own, not on its batch.
        request: Prompt, greatest length, and how words are chosen.
        with_grid: Whether to return the features before pooling too.

    Raises:
        StageError: The memory does not hold a single image.
        DeviceLostError: The device is gone.
    """

    def caption(rows: slice) -> list[Caption]:
        return _caption_at_once(janus, faces_BHWC[rows], image_ids[rows], request, with_grid)

    parts = in_batches(caption, len(image_ids), max(1, len(image_ids)), _WORK)
    return [caption for _, part in parts for caption in part]


@torch.inference_mode()
def _caption_at_once(
    janus: Janus,
    faces_BHWC: np.ndarray,
    image_ids: Sequence[str],
    request: Request,
    with_grid: bool,
) -> list[Caption]:
    """Caption a batch of faces; image features are computed once for words and embedding."""
    features_BTD = janus.image_features(janus.pixels(faces_BHWC))
    written = _write(janus, janus.embed_prompt(features_BTD, request.prompt), image_ids, request)
    raw = [answer.text if answer.finished else _cut(answer.text) for answer in written]
    clean = [remove_age_words(text) for text in raw]
    spoken = [text for text in clean if text]
    embeddings = dict(zip(spoken, embed_texts(janus, spoken), strict=True))
    grids = features_BTD.to(torch.float16).cpu().numpy() if with_grid else None
    captions = []
    for index, image in enumerate(_half(features_BTD.float().mean(dim=1))):
        text = embeddings.get(clean[index])
        reason = None
        if not raw[index]:
            reason = "the network wrote nothing"
        elif not clean[index]:
            reason = "nothing but words of age"
        elif image is None or text is None:
            reason = "an embedding is not finite in float16"
        captions.append(
            Caption(
                raw[index] or None, clean[index] or None, written[index].num_tokens,
                written[index].finished, image, text, None if grids is None else grids[index],
                reason,
            )
        )  # fmt: skip
    return captions


def _write(
    janus: Janus, prompt_BPD: Tensor, image_ids: Sequence[str], request: Request
) -> list[Written]:
    """Continue prompts in the way that is asked for."""
    if request.temperature == 0:
        return write_greedily(janus, prompt_BPD, request.max_new_tokens)
    return write_drawn(
        janus, prompt_BPD, request.max_new_tokens, request.temperature, request.seed, image_ids
    )


@torch.inference_mode()
def embed_texts(janus: Janus, texts: Sequence[str]) -> list[np.ndarray | None]:
    """Return the mean of the last hidden states over each text, float16 (D,); None if not finite.

    Equal texts are embedded once; the others in order of length, padded behind their end, where
    causal attention never looks.
    """
    rows = {text: janus.encode(f" {text}") for text in texts}
    embeddings: dict[str, np.ndarray | None] = {}
    for group in _of_like_length(rows):
        halves = _half(_mean_hidden(janus, [rows[text] for text in group]))
        embeddings |= zip(group, halves, strict=True)
    return [embeddings[text] for text in texts]


def _of_like_length(rows: dict[str, list[int]]) -> list[list[str]]:
    """Group texts in order of length, so that padding is at most a share of any row."""
    groups: list[list[str]] = []
    for text in sorted(rows, key=lambda text: (-len(rows[text]), text)):
        longest = len(rows[groups[-1][0]]) if groups else 0
        if len(rows[text]) < (1 - _MAX_PADDING) * longest or not groups:
            groups.append([])
        groups[-1].append(text)
    return groups


def _mean_hidden(janus: Janus, rows: list[list[int]]) -> Tensor:
    """Return the mean of the last hidden states over each row of tokens, float32 (B, D)."""
    longest = max(len(row) for row in rows)
    tokens_BK = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    lengths_B = torch.tensor([len(row) for row in rows], device=janus.device)
    used_BK = torch.arange(longest, device=janus.device)[None] < lengths_B[:, None]
    hidden_BKD = janus.model.model.language_model(
        inputs_embeds=janus.model.get_input_embeddings()(tokens_BK.to(janus.device)),
        use_cache=False,
    ).last_hidden_state.float()
    return (hidden_BKD * used_BK[..., None]).sum(dim=1) / lengths_B[:, None]


def _cut(text: str) -> str:
    """End an unfinished text with its last whole sentence, or leave it where it has none."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end > 0 else text


def _half(values_BD: Tensor) -> list[np.ndarray | None]:
    """Return rows as float16, None for a row that float16 cannot hold."""
    halves = values_BD.to(torch.float16).cpu().numpy()
    return [row if np.isfinite(row).all() else None for row in halves]
