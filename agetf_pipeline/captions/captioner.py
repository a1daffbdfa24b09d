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
from agetf_pipeline.experts.free_text_janus import write_greedily
from agetf_pipeline.experts.janus import Janus


@dataclass(frozen=True)
class Caption:
    """What Janus says of one face.

    Attributes:
        raw: As it was written, or None where nothing was.
        clean: Without words of age; None where nothing is left.
        num_tokens: Written for the raw caption.
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


@torch.inference_mode()
def caption_faces(
    janus: Janus,
    faces_BHWC: np.ndarray,
    image_ids: Sequence[str],
    request: Request,
    with_grid: bool = False,
) -> list[Caption]:
    """Caption a batch of faces; image features are computed once for words and embedding.

    Args:
        janus: The network.
        faces_BHWC: uint8 (B, H, W, 3), RGB.
        image_ids: B names: drawn words depend on an image's own, not on its batch.
        request: Prompt, greatest length, and how words are chosen.
        with_grid: Whether to return the features before pooling too.
    """
    features_BTD = janus.image_features(janus.pixels(faces_BHWC))
    prompt_BPD = janus.embed_prompt(features_BTD, request.prompt)
    written = write_greedily(janus, prompt_BPD, request.max_new_tokens)
    raw = [answer.text if answer.finished else _cut(answer.text) for answer in written]
    clean = [remove_age_words(text) for text in raw]
    spoken = [index for index, text in enumerate(clean) if text]
    texts = iter(embed_texts(janus, [clean[index] for index in spoken]))
    grids = features_BTD.to(torch.float16).cpu().numpy() if with_grid else None
    captions = []
    for index, image in enumerate(_half(features_BTD.float().mean(dim=1))):
        text = next(texts) if clean[index] else None
        reason = None
        if not raw[index]:
            reason = "the network wrote nothing"
        elif not clean[index]:
            reason = "nothing but words of age"
        elif image is None or text is None:
            reason = "an embedding is not finite in float16"
        captions.append(
            Caption(
                raw[index] or None, clean[index] or None, len(written[index].text.split()),
                written[index].finished, image, text, None if grids is None else grids[index],
                reason,
            )
        )  # fmt: skip
    return captions


def generate(janus: Janus, prompt_BPD: Tensor, max_new_tokens: int) -> list[str]:
    """Continue prompts greedily; see `write_greedily`. Unfinished captions end with a sentence."""
    written = write_greedily(janus, prompt_BPD, max_new_tokens)
    return [answer.text if answer.finished else _cut(answer.text) for answer in written]


@torch.inference_mode()
def embed_texts(janus: Janus, texts: Sequence[str]) -> list[np.ndarray | None]:
    """Return the mean of the last hidden states over each text, float16 (D,); None if not finite.

    Texts are padded behind their end, where causal attention never looks.
    """
    if not texts:
        return []
    rows = [janus.encode(f" {text}") for text in texts]
    longest = max(len(row) for row in rows)
    tokens_BK = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    lengths_B = torch.tensor([len(row) for row in rows], device=janus.device)
    used_BK = torch.arange(longest, device=janus.device)[None] < lengths_B[:, None]
    hidden_BKD = janus.model.model.language_model(
        inputs_embeds=janus.model.get_input_embeddings()(tokens_BK.to(janus.device)),
        use_cache=False,
    ).last_hidden_state.float()
    sums_BD = (hidden_BKD * used_BK[..., None]).sum(dim=1)
    return _half(sums_BD / lengths_B[:, None])


def _cut(text: str) -> str:
    """End an unfinished text with its last whole sentence, or leave it where it has none."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end > 0 else text


def _half(values_BD: Tensor) -> list[np.ndarray | None]:
    """Return rows as float16, None for a row that float16 cannot hold."""
    halves = values_BD.to(torch.float16).cpu().numpy()
    return [row if np.isfinite(row).all() else None for row in halves]
