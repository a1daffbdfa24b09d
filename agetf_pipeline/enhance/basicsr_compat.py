"""The one place that imports basicsr and realesrgan, which today's torchvision would not let load.

basicsr asks for `torchvision.transforms.functional_tensor`, a module that torchvision removed; the
one function it wants from there lives on elsewhere. The stand-in is put in place before the import.
"""

import sys
import types
from importlib import import_module
from typing import Any

_REMOVED_MODULE = "torchvision.transforms.functional_tensor"


def rrdbnet_class() -> Any:
    """Return `basicsr.archs.rrdbnet_arch.RRDBNet`."""
    _stand_in()
    return import_module("basicsr.archs.rrdbnet_arch").RRDBNet


def srvgg_class() -> Any:
    """Return `basicsr.archs.srvgg_arch.SRVGGNetCompact`."""
    _stand_in()
    return import_module("basicsr.archs.srvgg_arch").SRVGGNetCompact


def realesrganer_class() -> Any:
    """Return `realesrgan.RealESRGANer`, the official one-image-at-a-time loop."""
    _stand_in()
    return import_module("realesrgan").RealESRGANer


def _stand_in() -> None:
    if _REMOVED_MODULE in sys.modules:
        return
    module = types.ModuleType(_REMOVED_MODULE)
    module.rgb_to_grayscale = import_module(  # type: ignore[attr-defined]
        "torchvision.transforms.functional"
    ).rgb_to_grayscale
    sys.modules[_REMOVED_MODULE] = module
