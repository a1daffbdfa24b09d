"""Compiled networks: `torch.compile` for one size of batch, its results kept in a folder.

Compiling takes seconds to minutes a network, once for each machine, version of PyTorch, shape,
precision and number of threads; what it made is found again in the folder, in seconds. It pays over
thousands of images. On a CPU it needs a C++ compiler, on a GPU Triton. The rounding is not that of
the same network eager, so whoever keeps results tells them apart (`TAG`).

What the folder holds is run as it stands: it must be nobody else's to write.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agetf_pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

TAG = "-compiled"
"""What a version says of a network that is compiled."""

FOLDER = "compiled"
"""Of the workspace's state: what compiling made."""


def compiled(
    module: "nn.Module",
    cache: Path | None,
    batch_size: int | None = None,
    device: "torch.device | str" = "cpu",
) -> "CompiledNetwork":
    """Return a network that is compiled at its first whole batch; call it as the network itself.

    Call it in evaluation mode, without gradients, always from as many threads of torch as at first
    (`core.side_by_side`): what is compiled is that of the context of the first call.

    Args:
        module: The network, on its device, in its memory layout, with its final weights. They are
            frozen into what is compiled: later changes do not show.
        cache: Folder of what compiling made; None keeps it in PyTorch's own folder of this user.
        batch_size: Rows of a whole batch; None: those of the first call. Others are not worth a
            compilation: above half of them they are filled up to a whole batch, fewer run eagerly
            (so do halved batches where memory is short).
        device: Where it runs.

    Raises:
        ConfigError: There is no compiler.
    """
    require_compiler(str(device))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        # Of the process, read where something is compiled: PyTorch offers no other way.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache.resolve())
    return CompiledNetwork(module, batch_size)


def require_compiler(device: str) -> None:
    """Say clearly that nothing can be compiled here.

    Raises:
        ConfigError: There is no compiler.
    """
    remedy = "Install it, or set runtime.compile=false."
    if device.startswith("cuda"):
        import importlib.util

        if importlib.util.find_spec("triton") is None:
            raise ConfigError(
                "Expected Triton, which runtime.compile=true needs on a GPU; found no package of "
                f"that name. {remedy}"
            )
        return
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    if not any(shutil.which(name) for name in names):
        raise ConfigError(
            "Expected a C++ compiler, which runtime.compile=true needs on a CPU; found none of "
            f"{', '.join(names)}. {remedy}"
        )


class CompiledNetwork:
    """A network of which whole batches are compiled, and others run in a way that fits them."""

    def __init__(self, module: "nn.Module", batch_size: int | None) -> None:
        import torch

        self.module = module
        self.batch_size = batch_size
        # Freezing folds what depends on the weights alone (batch norms, layouts): on a CPU it is
        # most of what compiling gains.
        options = {"freezing": True}
        self._fast: Any = torch.compile(module, dynamic=False, options=cast(Any, options))

    def __call__(self, x_N: "torch.Tensor", *others: Any) -> Any:
        """Run the network.

        Args:
            x_N: float (N, ...), rows that do not depend on each other.
            others: What goes with every batch alike.

        Raises:
            ConfigError: `torch.compile` does not work here.
        """
        if self.batch_size is None:
            self.batch_size = len(x_N)
        missing = self.batch_size - len(x_N)
        if missing < 0 or 2 * missing >= self.batch_size:
            return self.module(x_N, *others)
        if missing == 0:
            return self._run(x_N, *others)
        whole_N = x_N.new_zeros(self.batch_size, *x_N.shape[1:])
        whole_N = whole_N.to(memory_format=_layout_of(x_N))
        whole_N[: len(x_N)] = x_N
        return _first(self._run(whole_N, *others), len(x_N))

    def _run(self, *arguments: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._fast(*arguments)
        except TorchDynamoException as error:
            raise ConfigError(
                "Expected torch.compile to work here; found: "
                f"{(str(error).strip().splitlines() or ['nothing said'])[0][:300]}. Look at the "
                "C++ compiler (on a GPU: Triton), or set runtime.compile=false."
            ) from error


def _layout_of(x_N: "torch.Tensor") -> "torch.memory_format":
    import torch

    if x_N.ndim == 4 and x_N.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _first(answer: Any, num: int) -> Any:
    """Return the first rows of a tensor, or of each tensor of a tuple."""
    if isinstance(answer, tuple):
        return tuple(_first(part, num) for part in answer)
    return None if answer is None else answer[:num]
