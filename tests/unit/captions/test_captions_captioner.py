"""Captions and embeddings by an untrained Janus."""

import logging

import numpy as np
import pytest
import torch

from agetf_pipeline.captions import captioner
from agetf_pipeline.captions.captioner import caption_faces, embed_texts
from agetf_pipeline.captions.versions import Request
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.experts.janus import Janus
from agetf_pipeline.experts.janus_tiny import build_tiny_janus
from agetf_pipeline.experts.janus_writing import Written

PROMPT = "Describe the face."
REQUEST = Request(PROMPT, 8)
TEXTS = ["A young man with a beard.", "", "He is 34.", "A man. A beard and"]


@pytest.fixture(scope="module")
def janus() -> Janus:
    return build_tiny_janus(32, [f" {PROMPT}", " A young man with a beard and short hair."], 1)


def _faces(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _ids(count: int) -> list[str]:
    return [f"image-{index}" for index in range(count)]


def _say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network write `TEXTS`, the last one unfinished."""
    written = [Written(text, text[-1:] != "d", 7 + index) for index, text in enumerate(TEXTS)]
    monkeypatch.setattr(captioner, "write_greedily", lambda *_: written)


def test_captions_are_clean_and_say_why_there_is_none(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(monkeypatch)
    good, silent, aged, cut = caption_faces(janus, _faces(4), _ids(4), REQUEST)
    assert (good.raw, good.clean) == (TEXTS[0], "A man with a beard.")
    assert (good.reason, good.finished, good.num_tokens) == (None, True, 7)
    assert good.image_embedding is not None
    assert good.text_embedding is not None
    assert good.token_grid is None
    assert (silent.raw, silent.reason) == (None, "the network wrote nothing")
    assert (aged.raw, aged.clean, aged.reason) == ("He is 34.", None, "nothing but words of age")
    assert aged.text_embedding is None
    # An unfinished caption ends with its last whole sentence; what was written is counted.
    assert (cut.raw, cut.finished, cut.num_tokens) == ("A man.", False, 10)


def test_embeddings_are_means_of_features_computed_once(janus: Janus) -> None:
    faces, calls = _faces(3), []
    hook = janus.model.model.vision_model.register_forward_hook(lambda *_: calls.append(1))
    captions = caption_faces(janus, faces, _ids(3), REQUEST, with_grid=True)
    hook.remove()
    assert len(calls) == 1
    with torch.inference_mode():
        features_BTD = janus.image_features(janus.pixels(faces))
    for caption, features_TD in zip(captions, features_BTD, strict=True):
        assert caption.token_grid is not None
        assert caption.image_embedding is not None
        assert caption.token_grid.dtype == caption.image_embedding.dtype == np.float16
        np.testing.assert_array_equal(caption.token_grid, features_TD.half().numpy())
        mean_D = features_TD.mean(dim=0).numpy()
        np.testing.assert_allclose(caption.image_embedding, mean_D, atol=2e-3)


def test_drawn_captions_do_not_depend_on_the_batch(janus: Janus) -> None:
    request = Request(PROMPT, 8, temperature=1.5, seed=3)
    faces, ids = _faces(5), _ids(5)
    together = [caption.raw for caption in caption_faces(janus, faces, ids, request)]
    for index in range(5):
        one = slice(index, index + 1)
        assert caption_faces(janus, faces[one], ids[one], request)[0].raw == together[index]
    other = Request(PROMPT, 8, temperature=1.5, seed=4)
    assert [caption.raw for caption in caption_faces(janus, faces, ids, other)] != together
    assert [caption.raw for caption in caption_faces(janus, faces, ids, REQUEST)] != together


def test_text_embeddings_do_not_depend_on_their_neighbours(janus: Janus) -> None:
    texts = ["A man.", "A young man with a beard and short hair.", "A young man.", "A man."]
    together = embed_texts(janus, texts)
    for text, beside in zip(texts, together, strict=True):
        (alone,) = embed_texts(janus, [text])
        assert alone is not None
        assert beside is not None
        assert alone.dtype == np.float16
        np.testing.assert_allclose(alone.astype(float), beside.astype(float), atol=2e-3)
    assert together[0] is together[3]
    assert embed_texts(janus, []) == []


def test_texts_are_embedded_in_order_of_length_with_little_padding(janus: Janus) -> None:
    texts = [" ".join(["man"] * number) for number in (3, 20, 9, 18, 19, 2, 10, 40)]
    shapes: list[tuple[int, ...]] = []

    def note(module: object, args: object, kwargs: dict) -> None:
        shapes.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    model = janus.model.model.language_model
    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    embed_texts(janus, texts)
    hook.remove()
    assert shapes == [(1, 40), (3, 20), (2, 10), (1, 3), (1, 2)]


def test_bf16_gives_captions_and_float16_embeddings(janus: Janus) -> None:
    half = build_tiny_janus(32, [f" {PROMPT}", " A young man with a beard and short hair."], 1)
    half.model.to(torch.bfloat16)
    for request in (REQUEST, Request(PROMPT, 8, temperature=0.7)):
        captions = caption_faces(half, _faces(3), _ids(3), request, with_grid=True)
        exact = caption_faces(janus, _faces(3), _ids(3), request)
        for caption, reference in zip(captions, exact, strict=True):
            assert caption.image_embedding is not None
            assert caption.image_embedding.dtype == np.float16
            assert reference.image_embedding is not None
            np.testing.assert_allclose(
                caption.image_embedding, reference.image_embedding, atol=0.05, rtol=0.05
            )
            assert caption.num_tokens > 0


def _remember(janus: Janus, most: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list:
    """Let the image encoder hold so many images; return the sizes that were tried."""
    tried, whole = [], Janus.image_features

    def features(self: Janus, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        tried.append(len(pixels_BCHW))
        if len(pixels_BCHW) > most:
            raise error
        return whole(self, pixels_BCHW)

    monkeypatch.setattr(Janus, "image_features", features)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_halved(
    janus: Janus,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(PROMPT, 8, temperature=1.0)
    expected = [caption.raw for caption in caption_faces(janus, _faces(7), _ids(7), request)]
    tried = _remember(janus, 2, monkeypatch, error)
    with caplog.at_level(logging.WARNING):
        captions = caption_faces(janus, _faces(7), _ids(7), request)
    assert [caption.raw for caption in captions] == expected
    assert tried == [7, 4, 2, 2, 2, 1]
    assert "caption.batch_size=2" in caplog.text


def test_memory_for_not_even_one_image_names_the_remedy(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    _remember(janus, 0, monkeypatch, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(StageError, match=r"runtime\.precision=bf16"):
        caption_faces(janus, _faces(2), _ids(2), REQUEST)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _remember(janus, 0, monkeypatch, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        caption_faces(janus, _faces(2), _ids(2), REQUEST)
    assert tried == [2]
