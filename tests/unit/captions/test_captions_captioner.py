"""Greedy captions and embeddings by an untrained Janus."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from agetf_pipeline.captions.captioner import caption_faces, embed_texts, generate
from agetf_pipeline.experts.janus import Janus
from agetf_pipeline.experts.janus_tiny import build_tiny_janus

PROMPT = "Describe the face."


@pytest.fixture(scope="module")
def janus() -> Janus:
    return build_tiny_janus(32, [f" {PROMPT}", " A young man with a beard and short hair."], 1)


def _faces(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _prompts(janus: Janus, count: int) -> torch.Tensor:
    with torch.inference_mode():
        return janus.embed_prompt(janus.image_features(janus.pixels(_faces(count))), PROMPT)


def _say(janus: Janus, tokens: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the output head choose these tokens, one a step."""

    def choose(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), len(janus.processor.tokenizer))
        logits[:, next(tokens)] = 1.0
        return logits

    monkeypatch.setattr(janus.model.lm_head, "forward", choose)


def test_cached_steps_equal_whole_passes(janus: Janus) -> None:
    """Each greedy token is the one that a pass over everything before it gives."""
    prompt, written = _prompts(janus, 2), []
    embeds = prompt
    with torch.inference_mode():
        for _ in range(6):
            hidden = janus.model.model.language_model(inputs_embeds=embeds).last_hidden_state
            written.append(janus.model.lm_head(hidden[:, -1]).argmax(dim=-1))
            step = janus.model.get_input_embeddings()(written[-1])[:, None]
            embeds = torch.cat([embeds, step], dim=1)
    texts = generate(janus, prompt, 6)
    for row, text in zip(torch.stack(written, dim=1).tolist(), texts, strict=True):
        kept = row[: row.index(janus.stop_ids[0])] if janus.stop_ids[0] in row else row
        decoded = janus.processor.tokenizer.decode(kept, skip_special_tokens=True)
        assert text == " ".join(decoded.split()) or decoded.strip().startswith(text)


def test_stop_token_ends_a_caption(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*janus.encode(" A man."), janus.stop_ids[0], *janus.encode(" beard beard")]
    steps = iter(words)

    _say(janus, steps, monkeypatch)
    assert generate(janus, _prompts(janus, 2), 32) == ["A man.", "A man."]


def test_unfinished_captions_end_with_a_whole_sentence(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(janus.encode(" A man. A beard and"))

    _say(janus, steps, monkeypatch)
    assert generate(janus, _prompts(janus, 1), 6) == ["A man."]


def test_text_embeddings_do_not_depend_on_their_neighbours(janus: Janus) -> None:
    alone = embed_texts(janus, ["A man."])[0]
    beside = embed_texts(janus, ["A man.", "A young man with a beard and short hair."])[0]
    assert alone is not None
    assert beside is not None
    assert alone.dtype == np.float16
    np.testing.assert_allclose(alone.astype(float), beside.astype(float), atol=2e-3)
    assert embed_texts(janus, []) == []


def test_reasons_say_why_there_is_no_caption(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["A young man with a beard.", "", "He is 34."]
    monkeypatch.setattr("agetf_pipeline.captions.captioner.generate", lambda *_: texts)
    good, silent, aged = caption_faces(janus, _faces(3), PROMPT, 8)
    assert (good.clean, good.reason) == ("A man with a beard.", None)
    assert good.image_embedding is not None
    assert good.text_embedding is not None
    assert (silent.raw, silent.reason) == (None, "the network wrote nothing")
    assert (aged.raw, aged.clean, aged.reason) == ("He is 34.", None, "nothing but words of age")
    assert aged.text_embedding is None
