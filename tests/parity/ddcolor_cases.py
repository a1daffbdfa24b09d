"""The weights and pictures of the comparison with the official DDColor; numpy alone.

Names and shapes are those of the official state dict, so that the official network takes them too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from seeded_arrays import seeded_picture, seeded_state, unit_noise

_WIDTH, _HIDDEN, _FEEDFORWARD, _QUERIES, _LAYERS, _SCALES = 512, 256, 2048, 100, 9, 3
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ENCODERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "base": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
"""Depths and channels by our names; officially they are called tiny and large."""


@dataclass(frozen=True)
class Picture:
    """An input: its size, and whether it is grey already (its colour is thrown away anyway)."""

    height: int
    width: int
    grey: bool

    def rgb(self) -> np.ndarray:
        """Return the picture, uint8 (height, width, 3)."""
        name = f"a portrait of {self.height} x {self.width}"
        picture = seeded_picture(name, self.height, self.width)
        return np.repeat(picture[..., 1:2], 3, axis=2) if self.grey else picture


PICTURES: dict[str, Picture] = {
    "grey_96x80": Picture(96, 80, grey=True),
    "colour_131x97": Picture(131, 97, grey=False),
    "grey_61x75": Picture(61, 75, grey=True),
    "colour_300x257": Picture(300, 257, grey=False),
}
PIXEL_STRIDE = (11, 13)
"""Of the kept pixels, down and across: odd, so that every place within a cell of ab is met."""
AB_STRIDE = (29, 37)
"""Of the kept values of ab, at the network's size."""


def published_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of an official checkpoint."""
    depths, dims = ENCODERS[size]
    shapes: dict[str, tuple[int, ...]] = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1)}
    shapes |= _encoder(depths, dims)
    below = dims[-1]
    for i, (skip, out) in enumerate(zip(dims[2::-1], (_WIDTH, _WIDTH, _WIDTH // 2), strict=True)):
        at = f"decoder.layers.{i}"
        shapes |= _spectral(f"{at}.shuf.conv.0", (4 * out, below, 1, 1), biased=False)
        shapes |= _batch_norm(f"{at}.shuf.conv.1", 4 * out) | _batch_norm(f"{at}.bn", skip)
        shapes |= _spectral(f"{at}.conv.0", (out, out + skip, 3, 3), biased=False)
        shapes |= _batch_norm(f"{at}.conv.2", out)
        below = out
    shapes |= _spectral("decoder.last_shuf.conv.0", (16 * below, below, 1, 1), biased=True)
    shapes |= {f"decoder.color_decoder.{k}": v for k, v in _colour_decoder(below)}
    return shapes | _spectral("refine_net.0.0", (2, _QUERIES + 3, 1, 1), biased=True)


def published_state(size: str) -> dict[str, np.ndarray]:
    """Return an official state dict, drawn from the names of its tensors.

    A spectral norm is what u and v say, u @ weight @ v, and is not computed anew where nothing
    trains. So u is drawn, and v is its image: one step of the power method, which gives a norm
    near 1 that is not the true one (about 2).
    """
    shapes = published_shapes(size)
    gains = {name: _gain(name) for name in shapes}
    state = seeded_state(shapes, gains)
    state["mean"] = np.array(_MEAN, np.float32).reshape(1, 3, 1, 1)
    state["std"] = np.array(_STD, np.float32).reshape(1, 3, 1, 1)
    for name in shapes:
        if name.endswith("weight_orig"):
            matrix = state[name].reshape(len(state[name]), -1).astype(np.float64)
            stem = name.removesuffix("_orig")
            u = unit_noise(f"{stem}_u", (len(matrix),))
            u /= np.linalg.norm(u)
            v = matrix.T @ u
            v /= np.linalg.norm(v)
            state[f"{stem}_u"], state[f"{stem}_v"] = u.astype(np.float32), v.astype(np.float32)
    return state


def _gain(name: str) -> float:
    """Scale chosen tensors so that every part is felt and colours are ordinary ones."""
    if name.endswith("in_proj_weight"):
        return 1 / 0.3 / 16 * 1.5  # 0.3 noise to variance 2.25 / fan-in: attention that chooses
    if name.endswith(("query_feat.weight", "query_embed.weight", "level_embed.weight")):
        return 16.0  # variance 1, as trained embeddings are drawn
    if name.endswith("color_embed.layers.2.weight"):
        return COLOUR_GAIN
    return 1.0


COLOUR_GAIN = 16.0


def _encoder(depths: Sequence[int], dims: Sequence[int]) -> dict[str, tuple[int, ...]]:
    at = "encoder.arch"
    shapes = _affine(f"{at}.downsample_layers.0.0", (dims[0], 3, 4, 4))
    shapes |= _affine(f"{at}.downsample_layers.0.1", (dims[0],))
    for i, (below, above) in enumerate(pairwise(dims), 1):
        shapes |= _affine(f"{at}.downsample_layers.{i}.0", (below,))
        shapes |= _affine(f"{at}.downsample_layers.{i}.1", (above, below, 2, 2))
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        for j in range(depth):
            block = f"{at}.stages.{i}.{j}"
            shapes[f"{block}.gamma"] = (dim,)
            shapes |= _affine(f"{block}.dwconv", (dim, 1, 7, 7)) | _affine(f"{block}.norm", (dim,))
            shapes |= _affine(f"{block}.pwconv1", (4 * dim, dim))
            shapes |= _affine(f"{block}.pwconv2", (dim, 4 * dim))
        shapes |= _affine(f"{at}.norm{i}", (dim,))
    return shapes | _affine(f"{at}.norm", (dims[-1],))


def _colour_decoder(last: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, count in (("query_feat", _QUERIES), ("query_embed", _QUERIES)):
        yield f"{name}.weight", (count, _HIDDEN)
    yield "level_embed.weight", (_SCALES, _HIDDEN)
    for i, dim in enumerate((_WIDTH, _WIDTH, last)):
        yield from _affine(f"input_proj.{i}", (_HIDDEN, dim, 1, 1)).items()
    for i in range(_LAYERS):
        for kind, inner in (("self", "self_attn"), ("cross", "multihead_attn")):
            at = f"transformer_{kind}_attention_layers.{i}"
            yield f"{at}.{inner}.in_proj_weight", (3 * _HIDDEN, _HIDDEN)
            yield f"{at}.{inner}.in_proj_bias", (3 * _HIDDEN,)
            yield from _affine(f"{at}.{inner}.out_proj", (_HIDDEN, _HIDDEN)).items()
            yield from _affine(f"{at}.norm", (_HIDDEN,)).items()
        at = f"transformer_ffn_layers.{i}"
        yield from _affine(f"{at}.linear1", (_FEEDFORWARD, _HIDDEN)).items()
        yield from _affine(f"{at}.linear2", (_HIDDEN, _FEEDFORWARD)).items()
        yield from _affine(f"{at}.norm", (_HIDDEN,)).items()
    yield from _affine("decoder_norm", (_HIDDEN,)).items()
    for i, dim in enumerate((_HIDDEN, _HIDDEN, last)):
        yield from _affine(f"color_embed.layers.{i}", (dim, _HIDDEN)).items()


def _affine(at: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{at}.weight": shape, f"{at}.bias": shape[:1]}


def _batch_norm(at: str, dim: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{at}.{name}": (dim,) for name in names} | {f"{at}.num_batches_tracked": ()}


def _spectral(at: str, shape: tuple[int, ...], biased: bool) -> dict[str, tuple[int, ...]]:
    fan_in = int(np.prod(shape[1:]))
    shapes = {f"{at}.weight_orig": shape, f"{at}.weight_u": shape[:1], f"{at}.weight_v": (fan_in,)}
    return shapes | ({f"{at}.bias": shape[:1]} if biased else {})
