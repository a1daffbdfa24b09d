"""Words that Janus writes: batches of prompts continued a token at a time.

A batch costs what is still being written: a text that has come to its end leaves it, its keys and
values with it. What is written of one image does not depend on the others beside it, up to the
rounding of the network.

Shapes: B batch, R rows of it that are still being written, P prompt tokens, L prompt tokens and
those written so far, K new tokens, V vocabulary, D width of the language model.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.experts.janus import Janus

if TYPE_CHECKING:
    from agetf_pipeline.experts.key_value_cache import Room

_PROMPT_TOKENS = 4096
"""Of prompts that are read at once on a CPU."""

Choice: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""From logits (R, V), the rows' places in the batch (R,) and the number of tokens before: tokens
(R,)."""


@dataclass(frozen=True)
class Written:
    """What the network wrote.

    Attributes:
        text: Without marks and outer spaces.
        finished: Whether it came to its end by itself.
        num_tokens: Written, without the one that ends it.
    """

    text: str
    finished: bool
    num_tokens: int = 0


def write_greedily(
    janus: Janus, prompt_BPD: Tensor, max_new_tokens: int, lengths: Sequence[int] | None = None
) -> list[Written]:
    """Continue prompts with the likeliest token each time.

    Args:
        janus: The network.
        prompt_BPD: Input embeddings, (B, P, D).
        max_new_tokens: Length at which unfinished texts are cut.
        lengths: Of the B prompts where they differ; what lies before a shorter one is not read.

    Returns:
        B texts.
    """
    return _write(janus, prompt_BPD, max_new_tokens, lengths, _likeliest)


def write_drawn(
    janus: Janus,
    prompt_BPD: Tensor,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    names: Sequence[str],
    lengths: Sequence[int] | None = None,
) -> list[Written]:
    """Continue prompts with tokens drawn from softmax(logits / temperature).

    Args:
        janus: The network.
        prompt_BPD: Input embeddings, (B, P, D).
        max_new_tokens: Length at which unfinished texts are cut.
        temperature: Above 0; the higher, the less likely tokens are drawn.
        seed: Of all draws.
        names: Of the B prompts: each has draws of its own, whatever is beside it.
        lengths: See `write_greedily`.

    Returns:
        B texts.
    """
    uniform_BK = torch.tensor(
        np.stack([_uniform(seed, name, max_new_tokens) for name in names]), device=janus.device
    )

    def draw(logits_RV: Tensor, rows_R: Tensor, place: int) -> Tensor:
        # float64: sums over 100,000 tokens must not favour any. One number a token, put through the
        # inverse distribution, gives the same token where logits differ by rounding alone.
        sums_RV = (logits_RV.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
        at_R1 = uniform_BK[rows_R, place, None] * sums_RV[:, -1:]
        token_R = torch.searchsorted(sums_RV, at_R1, right=True)[:, 0]
        return token_R.clamp_max(logits_RV.shape[1] - 1)

    return _write(janus, prompt_BPD, max_new_tokens, lengths, draw)


@torch.inference_mode()
def _write(
    janus: Janus,
    prompt_BPD: Tensor,
    max_new_tokens: int,
    lengths: Sequence[int] | None,
    choose: Choice,
) -> list[Written]:
    from agetf_pipeline.experts.key_value_cache import cache_of, closing_gaps, make_rooms

    model, device = janus.model, janus.device
    stop = torch.tensor(janus.stop_ids, device=device)
    rows_R = torch.arange(len(prompt_BPD), device=device)
    tokens: list[list[int]] = [[] for _ in rows_R]
    finished = [False] * len(tokens)
    if not tokens or max_new_tokens == 0:
        return [Written("", False) for _ in tokens]
    read_RL = None if lengths is None else _read(lengths, prompt_BPD)
    num_prompt = prompt_BPD.shape[1]
    settings = model.config.text_config
    rooms = make_rooms(settings, len(tokens), num_prompt + max_new_tokens, prompt_BPD)
    hidden_RD = _read_prompts(janus, prompt_BPD, read_RL, rooms)
    cache = cache_of(rooms, num_read=num_prompt)
    for place in range(max_new_tokens):
        token_R = choose(model.lm_head(hidden_RD), rows_R, place)
        goes_on_R = ~torch.isin(token_R, stop)
        steps = zip(rows_R.tolist(), token_R.tolist(), goes_on_R.tolist(), strict=True)
        for row, token, goes_on in steps:
            finished[row] = not goes_on
            if goes_on:
                tokens[row].append(token)
        if not bool(goes_on_R.any()) or place + 1 == max_new_tokens:
            break
        if not bool(goes_on_R.all()):
            kept = closing_gaps(goes_on_R)
            rows_R, token_R = rows_R[kept], token_R[kept]
            read_RL = None if read_RL is None else read_RL[kept]
            cache.batch_select_indices(kept)
        if read_RL is not None:
            read_RL = torch.cat([read_RL, read_RL.new_ones(len(read_RL), 1)], dim=1)
        hidden_RD = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(token_R)[:, None],
            past_key_values=cache, use_cache=True, rooms=cache,
            attention_mask=read_RL, position_ids=_positions(read_RL, 1),
        ).last_hidden_state[:, -1]  # fmt: skip
    return [
        Written(_decode(janus, row), end, len(row))
        for row, end in zip(tokens, finished, strict=True)
    ]


def _read_prompts(
    janus: Janus, prompt_BPD: Tensor, read_BP: Tensor | None, rooms: "Sequence[Room]"
) -> Tensor:
    """Fill the rooms with the prompts' keys and values; return the last hidden states, (B, D).

    A few prompts at a time on a CPU: one of the published network fills a core as well as many do,
    and what lies between its layers would otherwise take gigabytes.
    """
    from agetf_pipeline.experts.key_value_cache import cache_of

    B, P, _ = prompt_BPD.shape
    size = max(1, _PROMPT_TOKENS // P) if janus.device.type == "cpu" else B
    hidden = []
    for start in range(0, B, size):
        rows = slice(start, start + size)
        read = None if read_BP is None else read_BP[rows]
        hidden.append(
            janus.model.model.language_model(
                inputs_embeds=prompt_BPD[rows], past_key_values=cache_of(rooms, rows),
                use_cache=True, attention_mask=read, position_ids=_positions(read, P),
            ).last_hidden_state[:, -1]
        )  # fmt: skip
    return torch.cat(hidden)


def _likeliest(logits_RV: Tensor, rows_R: Tensor, place: int) -> Tensor:
    return logits_RV.argmax(dim=-1)


def _uniform(seed: int, name: str, number: int) -> np.ndarray:
    """Return a name's own numbers, float64 (number,) in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:caption:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).random(number)


def _read(lengths: Sequence[int], prompt_BPD: Tensor) -> Tensor:
    """Return which tokens of left-padded prompts count, int64 (B, P)."""
    num_places = prompt_BPD.shape[1]
    padding_B1 = num_places - torch.tensor(list(lengths), device=prompt_BPD.device)[:, None]
    return (torch.arange(num_places, device=prompt_BPD.device) >= padding_B1).long()


def _positions(read_RL: Tensor | None, number: int) -> Tensor | None:
    """Return the places of the last `number` tokens, int64 (R, number); None for the usual ones."""
    return None if read_RL is None else (read_RL.cumsum(1) - 1).clamp_min(0)[:, -number:]


def _decode(janus: Janus, tokens: list[int]) -> str:
    return " ".join(janus.processor.tokenizer.decode(tokens, skip_special_tokens=True).split())
