"""Attention of Janus in bf16 on a CPU, where PyTorch's own takes two to five times as long.

PyTorch's kernel has no product of matrices in bf16 for a single query, and none that leaves out
what comes later for many. Here both are batched products of matrices: of a few queries with what
they may look at, and of one query with the whole room of keys (a part of it would be copied first).
Scores are rounded to bf16, as transformers' own `eager` attention does.

Shapes: R rows, H heads, Q queries, L tokens, M tokens that the room holds, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "agetf_sdpa_blocks"
"""As an attention implementation of transformers."""

_BLOCK = 128
"""Queries at once: their scores stay in a core's own cache, and half of a causal mask is skipped.
Of a prompt of 595 tokens 17 ms in blocks of 128, 24 in blocks of 200, 39 at once; PyTorch's 35."""


def use_blocks(model: Any) -> None:
    """Let a network of transformers attend in blocks; what does not fit them goes PyTorch's way."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    rooms: Cache | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, as transformers' networks ask for it.

    Args:
        module: The layer that asks.
        query: (R, H, Q, D).
        key: (R, H, L, D).
        value: (R, H, L, D).
        attention_mask: None: every query sees all keys, or those before it where it is causal.
        scaling: Of the scores; None: D^-0.5.
        is_causal: None: what the layer says.
        rooms: The cache of which `key` and `value` are views, for one query at a time.
        kwargs: What transformers says besides.

    Returns:
        (R, Q, H, D), and no weights.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    causal = (module.is_causal if is_causal is None else is_causal) and num_queries > 1
    fits = (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and attention_mask is None
        and query.shape[1] == key.shape[1]
        and not (causal and num_queries != num_keys)
    )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if fits and num_queries == 1 and rooms is not None:
        keys, values = rooms.layers[module.layer_idx].room  # type: ignore[attr-defined]
        return _one_query(query, keys, values, num_keys, scale), None
    if fits and num_queries > 1:
        return _in_blocks(query, key, value, causal, scale), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
    )


def _one_query(
    query_RHQD: Tensor, keys_RHMD: Tensor, values_RHMD: Tensor, num_keys: int, scale: float
) -> Tensor:
    R, H, M, D = keys_RHMD.shape
    keys, values = keys_RHMD.view(R * H, M, D), values_RHMD.view(R * H, M, D)
    scores = torch.bmm(keys, query_RHQD.reshape(R * H, D, 1)).view(R * H, 1, M).mul_(scale)
    scores[:, :, num_keys:] = -torch.inf  # room that nothing was written to yet
    return torch.bmm(scores.softmax(dim=-1), values).view(R, 1, H, D)


def _in_blocks(
    query_RHQD: Tensor, key_RHLD: Tensor, value_RHLD: Tensor, causal: bool, scale: float
) -> Tensor:
    R, H, Q, D = query_RHQD.shape
    out_RQHD = query_RHQD.new_empty(R, Q, H, D)
    later = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool).triu(1)
    for row in range(R):
        # Laid out a head after the other, once; otherwise every product would do it.
        query, key, value = (x[row].contiguous() for x in (query_RHQD, key_RHLD, value_RHLD))
        for start in range(0, Q, _BLOCK):
            end = min(Q, start + _BLOCK)
            seen = end if causal else key.shape[1]
            scores = torch.bmm(query[:, start:end], key[:, :seen].transpose(1, 2)).mul_(scale)
            if causal:
                size = end - start
                scores[:, :, start:].masked_fill_(later[:size, :size], -torch.inf)
            out = torch.bmm(scores.softmax(dim=-1), value[:, :seen])
            out_RQHD[row, start:end] = out.transpose(0, 1)
    return out_RQHD
