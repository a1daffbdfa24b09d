"""Our batched engine beside the official one-image loop, same random weights."""

import numpy as np
import pytest
import torch

from agetf_pipeline.enhance.basicsr_compat import realesrganer_class
from agetf_pipeline.enhance.esrgan import build_esrgan, load_esrgan


@pytest.mark.parametrize(("arch", "scale"), [("rrdbnet", 4), ("rrdbnet", 2), ("srvgg", 4)])
def test_the_same_pixels_as_realesrganer(tmp_path, arch, scale):
    torch.manual_seed(1)
    network = build_esrgan(arch, "tiny", scale)
    path = tmp_path / "weights.pth"
    torch.save({"params": network.state_dict()}, path)
    official = realesrganer_class()(
        scale=scale, model_path=str(path), model=build_esrgan(arch, "tiny", scale), pre_pad=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    images = np.random.default_rng(1).integers(0, 256, (3, 40, 36, 3), dtype=np.uint8)
    ours = load_esrgan(path, arch, "tiny", scale)(images, tile_px=128)
    for image, result in zip(images, ours, strict=True):
        expected, _ = official.enhance(np.ascontiguousarray(image[:, :, ::-1]))
        assert np.abs(result.astype(int) - expected[:, :, ::-1]).max() <= 1
        assert np.mean(result != expected[:, :, ::-1]) < 0.01


def test_before_quantisation_it_is_the_same_network(tmp_path):
    torch.manual_seed(2)
    network = build_esrgan("rrdbnet", "tiny", 4).eval()
    path = tmp_path / "weights.pth"
    torch.save({"params_ema": network.state_dict()}, path)
    picture = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        ours = load_esrgan(path, "rrdbnet", "tiny", 4).network(picture)
        torch.testing.assert_close(ours, network(picture), atol=1e-4, rtol=0)
