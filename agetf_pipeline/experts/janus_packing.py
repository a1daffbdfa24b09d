"""Janus's matrices in bf16 as a CPU reads them, laid out once and not at every product.

oneDNN multiplies bf16 in blocks of its own layout. It brings a plain matrix into it at every call,
which few rows (a step of a batch of captions) do not pay for; packed ones are ready, and take the
activation that follows along. Products are the same to the last bit; an activation that is taken
along is computed before the rounding to bf16 instead of after it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from agetf_pipeline.core.devices import computes_bf16

_ROWS = 32
"""Of a product, that the layout is chosen for: a step of a batch. Whole prompts like it as well."""
_FUSED = {"GELU": "gelu", "GELUActivation": "gelu", "SiLU": "swish", "SiLUActivation": "swish"}


class PackedLinear(nn.Module):
    """A linear layer in bf16 for inference on a CPU, with the activation after it if there is one.

    Attributes:
        in_features: As those of `nn.Linear`.
        out_features: As those of `nn.Linear`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.activation = "none"
        self.bias = linear.bias
        # No parameter: nothing may move, save or train what only oneDNN can read.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, bf16 (..., out_features), of bf16 (..., in_features)."""
        # Called so, GELU is the exact one.
        return torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, self.activation, [], "none" if self._is_gelu else ""
        )

    @property
    def _is_gelu(self) -> bool:
        return self.activation == "gelu"


def can_pack(model: Any) -> bool:
    """Whether a network of transformers is in bf16, on a CPU that multiplies in it."""
    weight = model.lm_head.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and computes_bf16(weight.device)
        and torch.backends.mkldnn.is_available()
    )


@torch.no_grad()
def pack(model: Any) -> None:
    """Replace the matrices of a `JanusForConditionalGeneration`, one after the other.

    What draws images is left as it is: nothing here calls it.
    """
    for part in (model.model.vision_model, model.model.aligner, model.model.language_model):
        for module in list(part.modules()):
            _pack_children(module)
    model.lm_head = PackedLinear(model.lm_head)
    for layer in model.model.language_model.layers:
        _fuse(layer.mlp, "act_fn", [layer.mlp.gate_proj])
    for layer in model.model.vision_model.encoder.layers:
        _fuse(layer.mlp, "activation_fn", [layer.mlp.fc1])
    aligner = model.model.aligner
    _fuse(aligner, "activation_fn", [aligner.fc1, *aligner.hidden_layers][:-1])


def _pack_children(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))


def _fuse(module: Any, name: str, layers: list[PackedLinear]) -> None:
    """Let layers take along the activation that follows each of them, where oneDNN knows it."""
    activation = getattr(module, name)
    known = _FUSED.get(type(activation).__name__)
    if known is None or getattr(activation, "approximate", "none") != "none":
        return
    for layer in layers:
        layer.activation = known
    setattr(module, name, nn.Identity())
