"""Scoring all answers in one tree pass: against scoring each answer alone, and against what
transformers' own `generate` says of the same tokens."""

import numpy as np
import pytest
import torch

from agetf_pipeline.experts.answer_trie import build_trie
from agetf_pipeline.experts.janus import AGE_QUESTION, Janus, JanusExpert
from agetf_pipeline.experts.janus_tiny import build_tiny_janus
from agetf_pipeline.experts.janus_writing import write_greedily

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


SPELLINGS = [spelling for age in range(101) for spelling in (f"{age}", f" {age}")]
"""Every age as it is written without and with a leading space."""


def _generated(janus: Janus, pixels: torch.Tensor, num_padding: int) -> torch.Tensor:
    """log p of every spelling by transformers: `generate` writes it, its scores are added up.

    Args:
        janus: The network.
        pixels: float (1, 3, S, S), one face.
        num_padding: Tokens of padding to the left of every second prompt; the others have none of
            their own, so that a batch is padded as one of prompts of unequal length is.
    """
    prompt, stop = janus.prompt_ids(AGE_QUESTION), janus.stop_ids[0]
    answers = [[*janus.encode(spelling), stop] for spelling in SPELLINGS]
    pad = janus.processor.tokenizer.pad_token_id
    # The longer prompts begin with words that the answers are then conditioned on: the shorter
    # ones are compared.
    words = torch.tensor(janus.encode(" A man with a beard.")[:1] * num_padding, dtype=torch.int64)
    rows, seen = [], []
    for index in range(len(answers)):
        longer = bool(num_padding and index % 2)
        front = words if longer else torch.full((num_padding,), pad)
        rows.append(torch.cat([front, prompt]))
        seen.append(torch.cat([torch.full((num_padding,), int(longer)), torch.ones(len(prompt))]))
    ids = torch.stack(rows)
    output = janus.model.generate(
        input_ids=ids,
        attention_mask=torch.stack(seen).long(),
        pixel_values=pixels.expand(len(answers), -1, -1, -1),
        generation_mode="text",
        do_sample=False,
        max_new_tokens=max(map(len, answers)),
        # Each row may write its answer alone; the raw scores are those before that rule.
        prefix_allowed_tokens_fn=lambda row, written: [
            answers[row][min(len(written) - ids.shape[1], len(answers[row]) - 1)]
        ],
        output_logits=True,
        return_dict_in_generate=True,
    )
    scores = janus.model.compute_transition_scores(
        output.sequences, output.logits, normalize_logits=True
    )
    for row, answer in enumerate(answers):
        assert output.sequences[row, ids.shape[1] :][: len(answer)].tolist() == answer
    return torch.stack([scores[row, : len(answer)].sum() for row, answer in enumerate(answers)])


def _scored(janus: Janus, pixels: torch.Tensor) -> torch.Tensor:
    """log p of every spelling, each as an answer of its own, by the tree."""
    trie = build_trie([[janus.encode(spelling)] for spelling in SPELLINGS], janus.stop_ids)
    return janus.answer_log_probs(janus.image_features(pixels), AGE_QUESTION, trie)[0]


@torch.inference_mode()
def test_the_score_of_an_answer_is_the_product_of_generates_token_probabilities(
    janus: Janus,
) -> None:
    for face in _faces(2):
        pixels = janus.pixels(face[None])
        scored, generated = _scored(janus, pixels), _generated(janus, pixels, 0)
        assert float(scored.std()) > 0.5
        torch.testing.assert_close(scored, generated, atol=1e-4, rtol=1e-6)
        # An age is the sum of its two spellings, and the forms of an age are not all alike.
        trie = janus.age_trie()
        ages = janus.answer_log_probs(janus.image_features(pixels), AGE_QUESTION, trie)[0]
        both = torch.logsumexp(generated.reshape(101, 2), dim=1)
        torch.testing.assert_close(ages, both, atol=1e-4, rtol=1e-6)
        assert float((scored[0::2] - scored[1::2]).abs().max()) > 0.5


@torch.inference_mode()
def test_scores_are_those_of_prompts_padded_on_the_left(janus: Janus) -> None:
    pixels = janus.pixels(_faces(1))
    padded = _generated(janus, pixels, 5)[0::2]
    torch.testing.assert_close(_scored(janus, pixels)[0::2], padded, atol=1e-4, rtol=1e-6)


@torch.inference_mode()
def test_the_written_answer_is_generates_own(janus: Janus) -> None:
    pixels, ids = janus.pixels(_faces(3)), janus.prompt_ids(AGE_QUESTION).expand(3, -1)
    output = janus.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
        generation_mode="text", do_sample=False, max_new_tokens=12,
    )  # fmt: skip
    prompt_BPD = janus.embed_prompt(janus.image_features(pixels), AGE_QUESTION)
    written = write_greedily(janus, prompt_BPD, 12)
    decode = janus.processor.tokenizer.decode
    for row, answer in zip(output, written, strict=True):
        text = decode(row[ids.shape[1] :], skip_special_tokens=True)
        assert answer.text == " ".join(text.split())
    assert any(answer.text for answer in written)


@pytest.mark.parametrize("individual_digits", [False, True])  # an age is one token, or up to three
def test_scoring_takes_one_pass_whatever_the_answers_length(individual_digits: bool) -> None:
    janus = build_tiny_janus(32, [f" {AGE_QUESTION}"], 0, individual_digits)
    # Depth 0 is a first token; a space in front is a token of its own where digits are.
    assert max(janus.age_trie().depths) == (3 if individual_digits else 1)
    calls: list[str] = []
    for name in ("language_model", "vision_model", "aligner"):
        part = getattr(janus.model.model, name)
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    JanusExpert(janus).read(_faces(4))
    assert sorted(calls) == ["aligner", "language_model", "vision_model"]


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
