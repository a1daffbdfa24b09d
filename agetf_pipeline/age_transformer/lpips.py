"""LPIPS: the distance of two images in the features of AlexNet, weighted as people judged it.

The five linear heads ship with torchmetrics; AlexNet's ImageNet weights are a file of the user's.
Without it there is no LPIPS: no other network takes its name. Shapes: N images, C H W.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_state, read_state

_WIDTHS = (64, 192, 384, 256, 256)
_TAPS = (1, 4, 7, 9, 11)  # the five activations, by their place in torchvision's `features`
_EPSILON = 1e-8


class Lpips(nn.Module):
    """AlexNet's features and a linear head on each of five."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Places 0 to 11 as in torchvision, whose names the published file has.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in _WIDTHS)
        # ImageNet's mean and deviation, for images of -1 to 1.
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.register_buffer("scale", scale[:, None, None], persistent=False)

    def forward(self, image_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
        """Return the distance of each pair, (N,), 0 for equal images.

        Args:
            image_NCHW: -1 to 1, 32 px or more.
            target_NCHW: What it is compared with, of the same shape.
        """
        x = (torch.cat([image_NCHW, target_NCHW]) - self.shift) / self.scale
        distance_N = torch.zeros(len(image_NCHW), device=x.device)
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _TAPS:
                # fp32: differences of unit vectors are small beside what bf16 resolves.
                unit = x.float() / (x.float().square().sum(dim=1, keepdim=True) + _EPSILON).sqrt()
                image, target = unit.chunk(2)
                head_1C11 = self.heads[_TAPS.index(place)]
                weighted = ((image - target).square() * head_1C11).sum(dim=1)
                distance_N = distance_N + weighted.mean(dim=(1, 2))
        return distance_N


def load_lpips(alexnet: Path) -> Lpips:
    """Return LPIPS, frozen, with AlexNet's weights of a file; verify the file before.

    Args:
        alexnet: torchvision's `alexnet-owt-7be5be79.pth`, or its tensors as safetensors.

    Raises:
        WeightsError: A file is absent, unreadable or of another network.
    """
    published = read_state(alexnet)
    # The classifier is of no use here, but what is neither is a sign of another file.
    state = {name: v for name, v in published.items() if not name.startswith("classifier.")}
    for place, head in enumerate(_read_heads()):
        state[f"heads.{place}"] = head
    network = Lpips()
    load_state(network, state, str(alexnet))
    return network.eval().requires_grad_(False)


def _read_heads() -> list[Tensor]:
    """Return the linear heads, (1, C, 1, 1) each, of the file in torchmetrics."""
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            "Expected the package torchmetrics, which holds the linear heads of LPIPS; found none. "
            "Install it from requirements.lock, or unset train.lpips_weights."
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    heads = read_state(folder / "functional" / "image" / "lpips_models" / "alex.pth")
    names = [f"lin{place}.model.1.weight" for place in range(len(_WIDTHS))]
    if sorted(heads) != names:
        raise WeightsError(
            f"Expected {names} in torchmetrics' heads of LPIPS; found {sorted(heads)}. Install the "
            "version in requirements.lock, or unset train.lpips_weights."
        )
    return [heads[name] for name in names]
