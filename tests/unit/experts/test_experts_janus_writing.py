"""What a batch writes: against whole passes, and one prompt at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from agetf_pipeline.experts.janus import Janus
from agetf_pipeline.experts.janus_tiny import build_tiny_janus
from agetf_pipeline.experts.janus_writing import Written, write_drawn, write_greedily

PROMPT = "Describe the face."
NAMES = [f"image-{index}" for index in range(12)]


@pytest.fixture
def janus() -> Janus:
    """Untrained, with weights large enough that faces get different words."""
    texts = [f" {PROMPT}", " A young man with a beard and short hair."]
    return build_tiny_janus(32, texts, 3, num_layers=2)


@pytest.fixture
def asked(janus: Janus) -> Tensor:
    faces = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        return janus.embed_prompt(janus.image_features(janus.pixels(faces)), PROMPT)


def _stop_early(janus: Janus, share: float = 0.3) -> None:
    """Make the mark of the end likely, so that the texts of a batch end one after the other."""
    stop, whole = janus.stop_ids[0], janus.model.lm_head.forward

    def forward(hidden: Tensor) -> Tensor:
        logits = whole(hidden).clone()
        # A smooth function of the row's own state alone: high for about `share` of the states.
        ends = torch.sin(20 * hidden[:, 0]) > np.cos(np.pi * share)
        logits[ends, stop] = logits[ends].amax(dim=1) + 30
        return logits

    janus.model.lm_head.forward = forward


def _by_whole_passes(janus: Janus, prompt_1PD: Tensor, max_new_tokens: int) -> list[int]:
    """The likeliest tokens before the end, each from a pass over everything before it."""
    embeds, tokens = prompt_1PD, []
    with torch.inference_mode():
        while len(tokens) < max_new_tokens:
            hidden = janus.model.model.language_model(inputs_embeds=embeds).last_hidden_state
            token = janus.model.lm_head(hidden[:, -1]).argmax(dim=-1)
            if int(token) in janus.stop_ids:
                break
            tokens.append(int(token))
            step = janus.model.get_input_embeddings()(token)[:, None]
            embeds = torch.cat([embeds, step], dim=1)
    return tokens


def _text(janus: Janus, tokens: list[int]) -> str:
    return " ".join(janus.processor.tokenizer.decode(tokens, skip_special_tokens=True).split())


def test_rows_leave_the_batch_when_they_end_and_the_rest_stays_the_same(
    janus: Janus, asked: Tensor
) -> None:
    _stop_early(janus)
    sizes: list[int] = []
    model = janus.model.model.language_model
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    written = write_greedily(janus, asked, 9)
    hook.remove()
    expected = [_by_whole_passes(janus, prompt[None], 9) for prompt in asked]
    assert written == [
        Written(_text(janus, tokens), len(tokens) < 9, len(tokens)) for tokens in expected
    ]
    lengths = [answer.num_tokens for answer in written]
    assert len(set(lengths)) > 3  # otherwise nothing was shown
    # A step per token, and one for the mark of the end: no row is computed after its own.
    assert sizes == [sum(length >= step for length in lengths) for step in range(len(sizes))]
    assert len(sizes) == min(max(lengths) + 1, 9)


def _say(janus: Janus, tokens: Iterator[int]) -> None:
    """Make the output head choose these tokens, one a step."""

    def choose(hidden: Tensor) -> Tensor:
        logits = torch.zeros(len(hidden), len(janus.processor.tokenizer))
        logits[:, next(tokens)] = 1.0
        return logits

    janus.model.lm_head.forward = choose


def test_the_mark_of_the_end_is_neither_written_nor_counted(janus: Janus, asked: Tensor) -> None:
    words = janus.encode(" A man.")
    _say(janus, iter([*words, janus.stop_ids[0], *janus.encode(" beard")]))
    assert write_greedily(janus, asked[:2], 32) == [Written("A man.", True, len(words))] * 2


def test_length_is_capped(janus: Janus, asked: Tensor) -> None:
    _say(janus, iter(janus.encode(" A man with a beard")))
    assert write_greedily(janus, asked[:1], 3) == [Written("A man with", False, 3)]
    assert write_greedily(janus, asked[:1], 0) == [Written("", False, 0)]
    assert write_greedily(janus, asked[:0], 3) == []


def _padded(janus: Janus, prompts: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    longest, noise = max(len(prompt) for prompt in prompts), torch.Generator().manual_seed(0)
    rows = [
        # What lies before a prompt is not read, so it may be anything.
        torch.cat([torch.randn(longest - len(row), row.shape[1], generator=noise), row])
        for row in prompts
    ]
    return torch.stack(rows), [len(prompt) for prompt in prompts]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_prompts_of_different_lengths_are_written_as_alone(
    janus: Janus, asked: Tensor, temperature: float
) -> None:
    _stop_early(janus)
    prompts = [prompt[(5 * index) % 17 :] for index, prompt in enumerate(asked)]
    batch, lengths = _padded(janus, prompts)

    def write(rows: Tensor, names: list[str], lengths: list[int] | None = None) -> list[Written]:
        if temperature == 0:
            return write_greedily(janus, rows, 9, lengths)
        return write_drawn(janus, rows, 9, temperature, 0, names, lengths)

    together = write(batch, NAMES, lengths)
    assert together == [
        write(prompt[None], [name])[0] for prompt, name in zip(prompts, NAMES, strict=True)
    ]
    assert len({answer.num_tokens for answer in together}) > 3


def test_draws_are_a_names_own(janus: Janus, asked: Tensor) -> None:
    _stop_early(janus, 0.1)
    together = write_drawn(janus, asked, 9, 1.5, 7, NAMES)
    order = np.random.default_rng(1).permutation(12)
    shuffled = write_drawn(janus, asked[order], 9, 1.5, 7, [NAMES[at] for at in order])
    assert [shuffled[place] for place in np.argsort(order)] == together
    alone = [write_drawn(janus, asked[at : at + 1], 9, 1.5, 7, [NAMES[at]])[0] for at in range(12)]
    assert alone == together
    assert write_drawn(janus, asked, 9, 1.5, 8, NAMES) != together
    # Equal prompts of different names are not written alike.
    same = write_drawn(janus, asked[:1].expand(12, -1, -1), 9, 1.5, 7, NAMES)
    assert len({answer.text for answer in same}) > 6


def test_a_low_temperature_draws_the_likeliest(janus: Janus, asked: Tensor) -> None:
    assert write_drawn(janus, asked, 6, 1e-6, 0, NAMES) == write_greedily(janus, asked, 6)


def test_tokens_are_drawn_as_often_as_the_network_says(janus: Janus, asked: Tensor) -> None:
    logits_V = torch.full((len(janus.processor.tokenizer),), -torch.inf)
    words = janus.encode(" man beard hair")
    logits_V[words] = torch.tensor([3.0, 2.0, 0.0])
    janus.model.lm_head.forward = lambda hidden: logits_V.expand(len(hidden), -1)
    names = [str(number) for number in range(400)]
    written = write_drawn(janus, asked[:1].expand(400, -1, -1), 5, 2.0, 0, names)
    counts = Counter(word for answer in written for word in answer.text.split())
    expected = (torch.tensor([3.0, 2.0, 0.0]) / 2.0).softmax(0).tolist()
    assert sum(counts.values()) == 2000
    for word, share in zip(("man", "beard", "hair"), expected, strict=True):
        # Four standard errors of a share of 2,000.
        assert abs(counts[word] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5
