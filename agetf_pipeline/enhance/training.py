"""Training of the enhancers on clean colour faces, with defects made on the fly.

Colour: a face's colour is taken away and predicted back. Super-resolution: a face is made small, or
blurred and compressed at its own size, and brought back. Defects are drawn anew at every step.

Shape suffixes: N faces, H W pixels, C channels; numpy images are (N, H, W, 3).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.core.fitting import LossOf
from agetf_pipeline.enhance.colour import to_lab

_AB_SCALE = 20.0
"""Typical size of a or b in a face: brings the loss near 1."""
_COLOURFULNESS_WEIGHT = 0.1
_GRADIENT_WEIGHT = 0.5
_RESTORE_FRACTION = 0.5


@dataclass(frozen=True)
class LowQuality:
    """Inputs of one kind with their targets, uint8 (N, h, w, 3) and (N, H, W, 3).

    Attributes:
        inputs: What the network sees.
        targets: The clean faces; at the input's size for `restore`, `scale` times it otherwise.
    """

    inputs: np.ndarray
    targets: np.ndarray


def colour_loss(network: nn.Module, faces_NHW3: np.ndarray) -> LossOf:
    """Return the loss of a colouriser on batches of `faces_NHW3`, uint8 at the network's size.

    Huber distance of a and b to the face's own, plus a small term on mean chroma: the distance
    alone prefers greyish answers wherever it is unsure.
    """

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        rng = _rng(generator)
        faces = _flip(faces_NHW3[indices.numpy()], rng)
        grey, ab = zip(*[_colour_pair(face, rng) for face in faces], strict=True)
        grey_N3HW = torch.from_numpy(np.stack(grey)).permute(0, 3, 1, 2).contiguous()
        ab_N2HW = torch.from_numpy(np.stack(ab)).permute(0, 3, 1, 2) / _AB_SCALE
        predicted = network(grey_N3HW) / _AB_SCALE
        dullness = F.relu(_chroma(ab_N2HW) - _chroma(predicted)).mean()
        return F.smooth_l1_loss(predicted, ab_N2HW) + _COLOURFULNESS_WEIGHT * dullness

    return loss_of


def super_resolution_loss(
    network: nn.Module, faces_NHW3: np.ndarray, scale: int, patch_px: int
) -> LossOf:
    """Return the loss of a super-resolver on patches of `faces_NHW3`, uint8.

    Half of the batch are faces made small, to be enlarged; half are faces damaged at their own
    size, whose enlarged and then reduced answer shall be the clean face (`restore`): the two ways
    in which the enhancement uses the network. L1 on pixels and on their differences.

    Args:
        network: To be trained.
        faces_NHW3: Clean faces.
        scale: Of the network.
        patch_px: Side of the patches that the network sees.
    """

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        rng = _rng(generator)
        faces = _flip(faces_NHW3[indices.numpy()], rng)
        num_restore = round(_RESTORE_FRACTION * len(faces))
        restore = _patches([_damage(face, rng) for face in faces[:num_restore]], patch_px, 1, rng)
        enlarge = _patches(
            [_shrink(face, scale, rng) for face in faces[num_restore:]], patch_px, scale, rng
        )
        loss = torch.zeros(())
        parts = [(restore, True), (enlarge, False)]
        outputs = network(_tensor(np.concatenate([part.inputs for part, _ in parts if part])))
        for part, reduce in parts:
            if part is None:
                continue
            output, outputs = outputs.split([len(part.inputs), len(outputs) - len(part.inputs)])
            answer = F.avg_pool2d(output, scale) if reduce else output
            share = len(part.inputs) / len(faces)
            loss = loss + share * pixel_loss(answer, _tensor(part.targets))
        return loss

    return loss_of


def pixel_loss(answer_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Return mean L1 distance of pixels and, with half the weight, of neighbour differences."""
    loss = F.l1_loss(answer_NCHW, target_NCHW)
    for dim in (2, 3):
        loss = loss + 0.5 * _GRADIENT_WEIGHT * F.l1_loss(
            answer_NCHW.diff(dim=dim), target_NCHW.diff(dim=dim)
        )
    return loss


def start_as_enlargement(network: nn.Module, scale: int) -> None:
    """Let an untrained SRVGG start as a plain good enlargement, to be improved upon.

    Its own path around the trunk is nearest-neighbour. Three features are made to carry the picture
    through the trunk (pixels are positive, so the activations let them pass), and the last layer
    adds the slope across each pixel: sub-pixel mean = pixel + offset * (next - previous) / 2, which
    is exact to second order where pixels are means of what they cover. RRDBNet has no such path
    and is left as it is.
    """
    body = getattr(network, "body", None)
    if not hasattr(network, "upsampler") or not isinstance(body, nn.ModuleList):
        return
    convolutions = [layer for layer in body if isinstance(layer, nn.Conv2d)]
    rgb = range(3)
    with torch.no_grad():
        for layer in convolutions[:-1]:
            for channel in rgb:
                layer.weight[channel] = 0
                layer.weight[channel, channel, 1, 1] = 1
                if layer.bias is not None:
                    layer.bias[channel] = 0
        last = convolutions[-1]
        # Small, not zero: the trunk learns from the first step on.
        last.weight.mul_(0.01)
        if last.bias is not None:
            last.bias.zero_()
        # Channel c * scale^2 + row * scale + column of the pixel shuffle.
        offsets = [(index + 0.5) / scale - 0.5 for index in range(scale)]
        for channel in rgb:
            last.weight[:, channel] = 0
            for row, down in enumerate(offsets):
                for column, right in enumerate(offsets):
                    kernel = last.weight[channel * scale**2 + row * scale + column, channel]
                    kernel[2, 1], kernel[0, 1] = down / 2, -down / 2
                    kernel[1, 2], kernel[1, 0] = right / 2, -right / 2


def random_blur(face: np.ndarray, rng: np.random.Generator, max_sigma_px: float) -> np.ndarray:
    """Blur a uint8 face by a Gaussian of up to `max_sigma_px`, sometimes a box."""
    sigma = rng.uniform(0.4, max_sigma_px)
    if rng.random() < 0.2:
        side = 2 * round(sigma) + 1
        return cv2.blur(face, (side, side), borderType=cv2.BORDER_REFLECT_101)
    return cv2.GaussianBlur(face, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def random_jpeg(face: np.ndarray, rng: np.random.Generator, quality: tuple[int, int]) -> np.ndarray:
    """Compress a uint8 RGB face to JPEG and back, at a random quality of the range."""
    chosen = int(rng.integers(quality[0], quality[1] + 1))
    _, encoded = cv2.imencode(".jpg", face[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, chosen])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[:, :, ::-1]


def _damage(face: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Blur or compress a face at its own size; a few stay clean, so that clean ones stay so."""
    damaged = face
    relative = min(face.shape[:2]) / 128
    kind = rng.choice(["blur", "jpeg", "both", "none"], p=[0.45, 0.35, 0.12, 0.08])
    if kind in ("blur", "both"):
        damaged = random_blur(damaged, rng, 3.0 * relative)
    if kind in ("jpeg", "both"):
        damaged = random_jpeg(damaged, rng, (8, 60))
    return _maybe_grey(damaged, face, rng)


def _shrink(
    face: np.ndarray, scale: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make a face smaller by one of the usual filters, sometimes damaged before or after."""
    small = face
    if rng.random() < 0.4:
        small = random_blur(small, rng, 2.5 * min(face.shape[:2]) / 128)
    size = (face.shape[1] // scale, face.shape[0] // scale)
    how = rng.choice([cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LINEAR])
    small = cv2.resize(small, size, interpolation=int(how))
    if rng.random() < 0.4:
        small = random_jpeg(small, rng, (8, 80))
    return _maybe_grey(small, face, rng)


def _maybe_grey(
    small: np.ndarray, face: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Now and then take the colour of both: forced modes may meet grey pictures."""
    if rng.random() >= 0.1:
        return small, face
    pair = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (small, face)]
    return np.repeat(pair[0][..., None], 3, 2), np.repeat(pair[1][..., None], 3, 2)


def _patches(
    pairs: list[tuple[np.ndarray, np.ndarray]],
    patch_px: int,
    scale: int,
    rng: np.random.Generator,
) -> LowQuality | None:
    """Cut the same random patch from each input and, `scale` times as large, from its target."""
    if not pairs:
        return None
    inputs, targets = [], []
    for low, clean in pairs:
        side = min(patch_px, *low.shape[:2])
        top = int(rng.integers(0, low.shape[0] - side + 1))
        left = int(rng.integers(0, low.shape[1] - side + 1))
        inputs.append(low[top : top + side, left : left + side])
        rows = slice(scale * top, scale * (top + side))
        columns = slice(scale * left, scale * (left + side))
        targets.append(clean[rows, columns])
    return LowQuality(np.stack(inputs), np.stack(targets))


def _colour_pair(face: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey input (float32 RGB 0..1) and the ab planes of a face.

    Old pictures were grey by other recipes than Lab's L, and are not sharp: half of the inputs are
    luma, and some are blurred, or have another contrast.
    """
    lab = to_lab(face)
    if rng.random() < 0.5:
        luma = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        lightness = to_lab(np.repeat(luma[..., None], 3, 2))[:, :, 0]
    else:
        lightness = lab[:, :, 0]
    if rng.random() < 0.3:
        lightness = cv2.GaussianBlur(lightness, (0, 0), rng.uniform(0.4, 1.5))
    grey = np.zeros_like(lab)
    grey[:, :, 0] = lightness
    return cv2.cvtColor(grey, cv2.COLOR_Lab2RGB), lab[:, :, 1:]


def _chroma(ab_N2HW: Tensor) -> Tensor:
    return (ab_N2HW.square().sum(dim=1) + 1e-4).sqrt().mean(dim=(1, 2))


def _flip(faces_NHW3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mirrored = rng.random(len(faces_NHW3)) < 0.5
    return np.where(mirrored[:, None, None, None], faces_NHW3[:, :, ::-1], faces_NHW3)


def _tensor(images_NHW3: np.ndarray) -> Tensor:
    return torch.from_numpy(images_NHW3).permute(0, 3, 1, 2).float() / 255


def _rng(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
