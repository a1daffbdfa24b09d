"""Janus as it answers in words: a few tokens, generated and parsed.

The other way, scoring every age, is the default: it gives a distribution in one pass and cannot be
misread. This one shows what the network would say, "unknown" included.

Shapes: B batch, P prompt tokens, D width of the language model.
"""

import numpy as np
import torch

from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.free_text import ParsedAge, parse_age
from agetf_pipeline.experts.janus import AGE_QUESTION, Janus
from agetf_pipeline.experts.janus_writing import Written, write_greedily

CODE_VERSION = "1"
MAX_ANSWER_TOKENS = 24
"""Enough for "She appears to be somewhere between thirty and thirty-five years old."."""


class JanusTextExpert:
    """Ages that Janus writes, as an `AgeExpert`: no distribution, and no reading of "unknown"."""

    name = "janus"

    def __init__(self, janus: Janus) -> None:
        self.janus = janus

    @property
    def version(self) -> str:
        """Checkpoint hash and code version; another than that of scored ages."""
        return f"{self.janus.version}-text{CODE_VERSION}"

    @property
    def trained_on(self) -> str:
        """What the weights were trained on."""
        return self.janus.trained_on

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read a batch of aligned faces, uint8 (N, H, W, 3) RGB of any square size."""
        answers: list[ParsedAge] = []
        if len(faces_NHWC):
            features_BTD = self.janus.image_features(self.janus.pixels(faces_NHWC))
            prompt_BPD = self.janus.embed_prompt(features_BTD, AGE_QUESTION)
            written: list[Written] = write_greedily(self.janus, prompt_BPD, MAX_ANSWER_TOKENS)
            answers = [parse_age(answer.text, answer.finished) for answer in written]
        return Readings(
            np.array([answer.age_years for answer in answers], np.float32),
            np.array([answer.sigma_years for answer in answers], np.float32),
            None,
            None,
            tuple(answer.reason for answer in answers),
        )
