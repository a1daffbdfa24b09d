"""Janus as it answers in words: a few tokens, generated and parsed.

The other way, scoring every age, is the default: it gives a distribution in one pass and cannot be
misread. This one shows what the network would say, "unknown" included.

Shapes: B batch, P prompt tokens, D width of the language model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.free_text import ParsedAge, parse_age
from agetf_pipeline.experts.janus import AGE_QUESTION, Janus

CODE_VERSION = "1"
MAX_ANSWER_TOKENS = 24
"""Enough for "She appears to be somewhere between thirty and thirty-five years old."."""


@dataclass(frozen=True)
class Written:
    """What the network wrote: the text without marks, and whether it came to its end."""

    text: str
    finished: bool


@torch.inference_mode()
def write_greedily(janus: Janus, prompt_BPD: Tensor, max_new_tokens: int) -> list[Written]:
    """Continue prompts with the likeliest token each time, over cached keys and values.

    Args:
        janus: The network.
        prompt_BPD: Input embeddings, (B, P, D), of prompts of equal length (so that no padding
            lies before them).
        max_new_tokens: Length at which unfinished texts are cut.

    Returns:
        B texts, without marks and outer spaces.
    """
    model, tokenizer = janus.model, janus.processor.tokenizer
    stop = torch.tensor(janus.stop_ids, device=janus.device)
    done_B = torch.zeros(len(prompt_BPD), dtype=torch.bool, device=janus.device)
    step_BPD, cache, columns = prompt_BPD, None, []
    while len(columns) < max_new_tokens and not bool(done_B.all()):
        output = model.model.language_model(
            inputs_embeds=step_BPD, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        token_B = model.lm_head(output.last_hidden_state[:, -1]).argmax(dim=-1)
        done_B = done_B | torch.isin(token_B, stop)
        columns.append(token_B.masked_fill(done_B, stop[0].item()))
        step_BPD = model.get_input_embeddings()(columns[-1])[:, None]
    if not columns:
        return [Written("", False)] * len(prompt_BPD)
    written = []
    for row, finished in zip(torch.stack(columns, dim=1).tolist(), done_B.tolist(), strict=True):
        tokens = [token for token in row if token not in janus.stop_ids]
        text = " ".join(tokenizer.decode(tokens, skip_special_tokens=True).split())
        written.append(Written(text, finished))
    return written


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
            written = write_greedily(self.janus, prompt_BPD, MAX_ANSWER_TOKENS)
            answers = [parse_age(answer.text, answer.finished) for answer in written]
        return Readings(
            np.array([answer.age_years for answer in answers], np.float32),
            np.array([answer.sigma_years for answer in answers], np.float32),
            None,
            None,
            tuple(answer.reason for answer in answers),
        )
