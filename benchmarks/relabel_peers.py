"""The official loops: one picture after the other, each network by itself, in fp32.

Each opens the picture's file itself, as the published scripts do, brings it to its input with
OpenCV (Janus: with its own processor), and runs one picture through the network with as many
threads as torch has. No code of theirs is here: what they do is, in its cheapest form.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ANSWER_TOKENS = 10
"""What "The person looks about 35 years old." takes with its end. Random weights never end an
answer; the published call would let them go on up to 512."""

Loop = Callable[[Path], float]


def official_loop(expert: Any) -> Loop:
    """Return what reads one file with the network of an expert that was loaded in fp32."""
    return _janus(expert.janus) if expert.name == "janus" else _image_network(expert)


def _image_network(expert: Any) -> Loop:
    import cv2
    import torch

    mean_311 = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std_311 = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    ages_A = torch.arange(101.0)

    def read(path: Path) -> float:
        bgr = cv2.imread(str(path))
        if bgr is None:
            raise OSError(f"{path} cannot be read")
        rgb = cv2.cvtColor(cv2.resize(bgr, (224, 224)), cv2.COLOR_BGR2RGB)
        x_CHW = torch.from_numpy(rgb).permute(2, 0, 1).float().div(255)
        x_NCHW = ((x_CHW - mean_311) / std_311)[None]
        with torch.no_grad():
            answer = expert.module(x_NCHW)
            if isinstance(answer, tuple):  # MiVOLO: the age itself
                return float(answer[0])
            return float(answer.softmax(1) @ ages_A)

    return read


def _janus(janus: Any) -> Loop:
    import torch
    from PIL import Image

    from agetf_pipeline.experts.free_text import parse_age
    from agetf_pipeline.experts.janus import AGE_QUESTION

    ids = janus.prompt_ids(AGE_QUESTION)[None]

    def read(path: Path) -> float:
        with Image.open(path) as image:
            faces = np.array(image.convert("RGB"))[None]
        pixels = janus.pixels(faces)
        output = janus.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
            generation_mode="text", do_sample=False, max_new_tokens=ANSWER_TOKENS,
            min_new_tokens=ANSWER_TOKENS,
        )  # fmt: skip
        text = janus.processor.tokenizer.decode(output[0, ids.shape[1] :], True)
        return parse_age(text).age_years

    return read
