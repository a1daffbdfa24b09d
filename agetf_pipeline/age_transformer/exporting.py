"""The AgeTransformer as an exported program (torch.export), which runs without this package.

Shapes: B faces, A ages, S side in pixels.
"""

import copy
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.program_files import CARD, read_checked
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import write_bytes

SUFFIX = ".pt2"


class ImagesOnly(nn.Module):
    """The AgeTransformer as a function of two tensors, without guidance."""

    def __init__(self, model: AgeTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor, ages: Tensor) -> Tensor:
        """Return the renderings, (B, A, 3, S, S), of faces (B, 3, S, S) at ages (B, A) in years."""
        return self.model(faces, ages).image


def export_program(model: AgeTransformer, card: dict[str, Any], path: Path) -> Path:
    """Write a model as an exported program, atomically: fp32, any number of faces and of ages.

    Args:
        model: The model, on the CPU; its parameters are taken as they are.
        card: What the weights say of themselves; it goes into the file.
        path: File to write, `*.pt2`.

    Raises:
        WeightsError: The path does not end in `.pt2`.
    """
    if path.suffix != SUFFIX:
        raise WeightsError(
            f"Expected the name of an exported program to end in {SUFFIX}; found {path.name!r}. "
            "Name it, say, model.pt2."
        )
    size_px = model.settings.size_px
    batch, num_ages = torch.export.Dim("batch"), torch.export.Dim("num_ages")
    # Sizes that differ from each other and from 1: tracing would take equal ones for the same.
    faces, ages = torch.zeros(2, 3, size_px, size_px), torch.full((2, 3), 30.0)
    with torch.no_grad():
        program = torch.export.export(
            ImagesOnly(copy.deepcopy(model)).eval().requires_grad_(False),
            (faces, ages),
            dynamic_shapes=({0: batch}, {0: batch, 1: num_ages}),
        )
    for node in program.graph.nodes:  # lines of the source, with this machine's folders
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()  # unlike a file, it does not name the archive's folder after itself
    torch.export.save(program, buffer, extra_files={CARD: json.dumps(card, sort_keys=True)})
    write_bytes(path, buffer.getvalue())
    return path


def open_program(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Open an exported program for inference; return it and its card.

    Raises:
        WeightsError: The file is absent, damaged, no program with a card, or was exported by
            another version of PyTorch that this one cannot read.
    """
    data, card = read_checked(path)
    try:
        program = torch.export.load(io.BytesIO(data))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:
        raise WeightsError(
            f"Expected an exported program that PyTorch {torch.__version__} opens at {path}; "
            f"found: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}. "
            "Export the weights again with `agetf model export`."
        ) from error
    _drop_type_checks(module)
    return module, card


def _drop_type_checks(module: nn.Module) -> None:
    """Remove the checks that every tensor has the type of tracing: under autocast some differ."""
    assert isinstance(module, torch.fx.GraphModule)
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()
