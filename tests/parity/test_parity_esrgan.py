"""Our batched engine beside the official one-image loop, full-size networks, same random weights.

The official side is RealESRGANer with the networks as its inference script builds them, without its
own padding (`pre_pad=0`, as that script does).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from seeded_arrays import seeded_picture, seeded_state
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.enhance.basicsr_compat import realesrganer_class, rrdbnet_class, srvgg_class
from agetf_pipeline.enhance.esrgan import SuperResolver, build_esrgan, load_esrgan

MAX_FLOAT = 1e-4
"""Before quantisation, of a picture in 0 to 1."""
MAX_LEVELS = 1
"""Of 255."""


@dataclass(frozen=True)
class Published:
    """One published network: how the official script builds it, and what we call it.

    Its seeded weights are scaled by `last_gain` in the last convolution, which brings the output
    of so many blocks mostly within 0 to 1.
    """

    build: Callable[[], nn.Module]
    arch: Literal["rrdbnet", "srvgg"]
    size: str
    scale: int
    key: str
    last_gain: float


def _rrdbnet(num_blocks: int, scale: int) -> nn.Module:
    return rrdbnet_class()(
        num_in_ch=3, num_out_ch=3, num_feat=64, num_block=num_blocks, num_grow_ch=32, scale=scale
    )


def _srvgg() -> nn.Module:
    return srvgg_class()(
        num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=32, upscale=4, act_type="prelu"
    )


PUBLISHED: dict[str, Published] = {
    "x4plus": Published(lambda: _rrdbnet(23, 4), "rrdbnet", "full", 4, "params_ema", 0.03),
    "x2plus": Published(lambda: _rrdbnet(23, 2), "rrdbnet", "full", 2, "params_ema", 0.03),
    "x4plus_anime_6B": Published(
        lambda: _rrdbnet(6, 4), "rrdbnet", "anime_6b", 4, "params_ema", 0.3
    ),
    "general-x4v3": Published(_srvgg, "srvgg", "full", 4, "params", 0.1),
}
CASES = [
    pytest.param("x4plus", (24, 20), id="x4plus"),
    pytest.param("x2plus", (24, 20), id="x2plus"),
    pytest.param("x2plus", (23, 19), id="x2plus, odd"),
    pytest.param("x2plus", (24, 19), id="x2plus, odd width"),
    pytest.param("x4plus_anime_6B", (23, 20), id="x4plus_anime_6B"),
    pytest.param("general-x4v3", (24, 19), id="general-x4v3"),
]


def _seeded(published: Published) -> dict[str, Tensor]:
    """Weights that keep the signal alive through all layers."""
    tensors = published.build().state_dict()
    *_, last, _ = tensors  # the weight of the last convolution; its bias comes after it
    gains = {}
    for name, tensor in tensors.items():
        if name == last:
            gains[name] = published.last_gain
        elif published.arch == "srvgg" and tensor.ndim > 1:
            gains[name] = 1.37  # sqrt(2 / (1 + slope^2))
        elif name.endswith("weight") and tensor.ndim == 1:
            gains[name] = 0.25  # slopes of the activations
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    state = {k: torch.from_numpy(v) for k, v in seeded_state(shapes, gains).items()}
    if published.arch == "rrdbnet":
        state["conv_last.bias"] += 0.2
    return state


def _resolver(published: Published, state: dict[str, Tensor], folder: Path) -> SuperResolver:
    path = folder / "published.pth"
    torch.save({published.key: state}, path)
    return load_esrgan(path, published.arch, published.size, published.scale)


def _official(published: Published, folder: Path) -> Any:
    return realesrganer_class()(
        scale=published.scale, model_path=str(folder / "published.pth"), model=published.build(),
        pre_pad=0, half=False, device=torch.device("cpu"),
    )  # fmt: skip


def _official_float(official: Any, rgb: np.ndarray) -> Tensor:
    """What RealESRGANer has before it clips and rounds, (3, H, W)."""
    with torch.no_grad():
        official.pre_process(rgb.astype(np.float32) / 255)
        official.process()
        return official.post_process()[0].clone()


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_same_picture_as_realesrganer(tmp_path, name, shape):
    published = PUBLISHED[name]
    ours = _resolver(published, _seeded(published), tmp_path)
    official = _official(published, tmp_path)
    (tmp_path / "published.pth").unlink()
    height, width = shape
    images = np.stack([seeded_picture(f"low-res {i}", height, width) for i in range(2)])
    floats: list[Tensor] = []
    hook = ours.network.register_forward_hook(lambda _m, _x, y: floats.extend(y.float()))
    eight_bits = ours(images, tile_px=128)
    hook.remove()
    for image, result, padded in zip(images, eight_bits, floats, strict=True):
        expected = _official_float(official, image)
        unrounded = padded[:, : published.scale * height, : published.scale * width]
        torch.testing.assert_close(unrounded, expected, atol=MAX_FLOAT, rtol=0)
        # It is a picture, and hardly clipped: the comparison means something.
        assert 0.02 < expected.std() < 0.5
        assert ((expected > 0) & (expected < 1)).float().mean() > 0.8
        bgr, mode = official.enhance(np.ascontiguousarray(image[:, :, ::-1]))
        assert mode == "RGB"
        assert np.abs(result.astype(int) - bgr[:, :, ::-1]).max() <= MAX_LEVELS


@pytest.mark.parametrize("key", ["params_ema", "params"])
def test_published_layouts_load_strictly(tmp_path, key):
    network = build_esrgan("srvgg", "tiny", 2)
    state = network.state_dict()
    path = tmp_path / "published.pth"
    torch.save({key: state}, path)
    loaded = load_esrgan(path, "srvgg", "tiny", 2).network.state_dict()
    assert all(torch.equal(loaded[name].float(), tensor) for name, tensor in state.items())
    torch.save({key: state | {"body.99.weight": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"Unexpected: \['body.99.weight'\]"):
        load_esrgan(path, "srvgg", "tiny", 2)
    del state["body.0.bias"]
    torch.save({key: state}, path)
    with pytest.raises(WeightsError, match=r"Missing: \['body.0.bias'\]"):
        load_esrgan(path, "srvgg", "tiny", 2)
