"""Janus in bf16 on a CPU, in packed matrices and attention in blocks, beside transformers' own."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agetf_pipeline.captions.captioner import caption_faces, embed_texts
from agetf_pipeline.captions.versions import Request
from agetf_pipeline.experts.janus import Janus, JanusExpert
from agetf_pipeline.experts.janus_attention import attend, use_blocks
from agetf_pipeline.experts.janus_packing import PackedLinear, can_pack, pack
from agetf_pipeline.experts.janus_tiny import build_tiny_janus
from agetf_pipeline.experts.key_value_cache import cache_of, make_rooms

TEXTS = [" Describe the face.", " A young man with a beard and short hair.",
         " How old is this person? Answer with the number of years."]  # fmt: skip
LAYER: Any = SimpleNamespace(is_causal=True, layer_idx=0, training=False, num_key_value_groups=1)


def _tiny(dtype: torch.dtype) -> Janus:
    janus = build_tiny_janus(32, TEXTS, 1, num_layers=2)
    janus.model.to(dtype)
    return janus


@pytest.fixture(scope="module")
def packed() -> Janus:
    janus = _tiny(torch.bfloat16)
    pack(janus.model)
    use_blocks(janus.model)
    return janus


def _faces(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _qkv(num_queries: int, num_keys: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(2, 4, num, 16).to(torch.bfloat16) for num in (num_queries, num_keys, num_keys)
    ]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("number", [2, 128, 300])
def test_blocks_attend_to_what_one_pass_attends_to(number: int, causal: bool) -> None:
    query, key, value = _qkv(number, number)
    ours, _ = attend(LAYER, query, key, value, None, is_causal=causal)
    exact, _ = sdpa_attention_forward(
        LAYER, query.float(), key.float(), value.float(), None, is_causal=causal
    )
    torch.testing.assert_close(ours.float(), exact, atol=0.02, rtol=0.02)


def test_one_query_sees_what_was_written_of_its_room() -> None:
    query, key, value = _qkv(1, 9)
    rooms = [tuple(torch.full((2, 4, 14, 16), 5.0).to(torch.bfloat16) for _ in range(2))]
    cache = cache_of(rooms)  # type: ignore[arg-type]
    keys, values = cache.update(key, value, 0)
    ours, _ = attend(LAYER, query, keys, values, None, rooms=cache)
    exact, _ = sdpa_attention_forward(LAYER, query.float(), key.float(), value.float(), None)
    torch.testing.assert_close(ours.float(), exact, atol=0.02, rtol=0.02)


def test_what_does_not_fit_blocks_goes_pytorchs_way() -> None:
    query, key, value = _qkv(5, 5)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    for tensors, given in (((query, key, value), mask),
                           ((query.float(), key.float(), value.float()), None)):  # fmt: skip
        ours, _ = attend(LAYER, *tensors, given, scaling=0.25)
        theirs, _ = sdpa_attention_forward(LAYER, *tensors, given, scaling=0.25)
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("rows", [1, 7, 32, 200])
def test_a_packed_layer_gives_the_same_bits(rows: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 80).to(torch.bfloat16)
    x = torch.randn(2, rows, 48).to(torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), atol=0, rtol=0)


def test_all_matrices_are_packed_with_the_activations_after_them(packed: Janus) -> None:
    model = packed.model.model
    for part in (model.vision_model, model.aligner, model.language_model, packed.model.lm_head):
        assert not [child for child in part.modules() if type(child) is torch.nn.Linear]
    assert model.language_model.layers[1].mlp.gate_proj.activation == "swish"
    assert model.language_model.layers[1].mlp.up_proj.activation == "none"
    assert model.vision_model.encoder.layers[0].mlp.fc1.activation == "gelu"
    assert model.aligner.fc1.activation == "gelu"
    assert model.aligner.hidden_layers[-1].activation == "none"
    assert packed.device == torch.device("cpu")


def test_embeddings_of_images_and_words_hold_in_bf16(packed: Janus) -> None:
    exact, plain = _tiny(torch.float32), _tiny(torch.bfloat16)
    request, ids = Request("Describe the face.", 8), [str(number) for number in range(6)]
    all_of_them = (exact, plain, packed)
    for first, second, third in zip(
        *(caption_faces(janus, _faces(6), ids, request) for janus in all_of_them), strict=True
    ):
        assert _cosine(first.image_embedding, third.image_embedding) > 0.999
        assert _cosine(second.image_embedding, third.image_embedding) > 0.999
        assert third.num_tokens > 0
    words = ["A young man with a beard.", "Describe the short hair."]
    for first, second in zip(embed_texts(exact, words), embed_texts(packed, words), strict=True):
        assert _cosine(first, second) > 0.999


def test_a_token_at_a_time_gives_what_all_at_once_give(packed: Janus) -> None:
    model = packed.model
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(torch.tensor([packed.encode(TEXTS[1])] * 3))
        number = embeds.shape[1]
        whole = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        cache = cache_of(make_rooms(model.config.text_config, 3, number + 4, embeds))
        steps = []
        for place in range(number):
            step = model.model.language_model(
                inputs_embeds=embeds[:, place : place + 1], past_key_values=cache, use_cache=True,
                rooms=cache,
            )  # fmt: skip
            steps.append(step.last_hidden_state)
    steps = torch.cat(steps, dim=1).float()
    assert torch.nn.functional.cosine_similarity(steps, whole.float(), dim=-1).min() > 0.999


def test_ages_are_read_alike(packed: Janus) -> None:
    plain = _tiny(torch.bfloat16)
    ours, theirs = (JanusExpert(janus).read(_faces(4)) for janus in (packed, plain))
    np.testing.assert_allclose(ours.age_years, theirs.age_years, atol=0.5)


def test_a_network_in_fp32_is_left_as_it_is() -> None:
    assert not can_pack(_tiny(torch.float32).model)
    half = copy.deepcopy(_tiny(torch.bfloat16).model)
    assert can_pack(half) == torch.cpu._is_avx512_bf16_supported()


def _cosine(first: np.ndarray | None, second: np.ndarray | None) -> float:
    assert first is not None
    assert second is not None
    a, b = first.astype(float), second.astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
