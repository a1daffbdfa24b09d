"""Scoring all answers in one tree pass against scoring each answer alone."""

import numpy as np
import pytest
import torch

from agetf_pipeline.experts.janus import AGE_QUESTION, Janus, JanusExpert
from agetf_pipeline.experts.janus_tiny import build_tiny_janus

QUESTION = "Describe the face."


@pytest.fixture(scope="module")
def janus() -> Janus:
    """Untrained, with weights large enough that answers differ by orders of magnitude."""
    janus = build_tiny_janus(
        32, [f" {AGE_QUESTION}", f" {QUESTION}", " A man with a beard."], 3, True, 2
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in janus.model.model.language_model.parameters():
            if parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise)
        head = janus.model.lm_head.weight
        head.copy_(0.5 * torch.randn(head.shape, generator=generator))
    return janus


def _faces(count: int, size_px: int = 48) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def _alone(janus: Janus, pixels: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
    """log p of one token sequence and the stop token, by a plain pass of the whole model."""
    prompt = janus.prompt_ids(AGE_QUESTION)
    ids = torch.cat([prompt, torch.tensor(tokens)]).expand(len(pixels), -1)
    output = janus.model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids))
    log_probs = output.logits.log_softmax(dim=-1)
    wanted = (*tokens, janus.stop_ids[0])
    return sum(  # type: ignore[return-value]
        log_probs[:, len(prompt) - 1 + step, token] for step, token in enumerate(wanted)
    )


@torch.inference_mode()
def test_tree_pass_equals_each_answer_alone(janus: Janus) -> None:
    pixels = janus.pixels(_faces(2))
    trie = janus.age_trie()
    scored = janus.answer_log_probs(janus.image_features(pixels), AGE_QUESTION, trie)
    alone = torch.stack(
        [
            torch.logsumexp(
                torch.stack(
                    [
                        _alone(janus, pixels, tuple(trie.token_ids[node] for node in path))
                        for path in trie.paths(age)
                    ]
                ),
                dim=0,
            )
            for age in range(101)
        ],
        dim=1,
    )
    assert float(scored.std()) > 0.5  # answers differ, so that equality means something
    torch.testing.assert_close(scored, alone, atol=1e-4, rtol=0)


def test_batch_equals_single(janus: Janus) -> None:
    faces = _faces(5)
    expert = JanusExpert(janus)
    together = expert.read(faces)
    singly = [expert.read(faces[index : index + 1]) for index in range(5)]
    assert together.distribution is not None
    for index, alone in enumerate(singly):
        assert alone.distribution is not None
        np.testing.assert_allclose(together.distribution[index], alone.distribution[0], atol=1e-5)
        np.testing.assert_allclose(together.age_years[index], alone.age_years[0], atol=1e-3)


@torch.inference_mode()
def test_chunked_logits_equal_whole(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    features = janus.image_features(janus.pixels(_faces(3)))
    whole = janus.answer_log_probs(features, AGE_QUESTION, janus.age_trie())
    monkeypatch.setattr("agetf_pipeline.experts.janus._MAX_LOGITS", 1)
    pieces = janus.answer_log_probs(features, AGE_QUESTION, janus.age_trie())
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=0)
