"""Lets torchvision be imported where its compiled part and the installed torch do not belong together.

A torchvision built for CUDA cannot load its compiled operators into a CPU-only torch. Only two of them are needed at
import (`torchvision/_meta_registrations.py` registers shape functions for `nms` and `qnms` without asking whether
they exist), and the import fails there. With the two names declared, everything that is written in Python works;
calling one of the two still fails, as it should.
"""

from __future__ import annotations

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""as in torchvision's own `csrc/ops/nms.cpp` and `csrc/ops/quantized/cpu/qnms_kernel.cpp`"""

_library: torch.library.Library | None = None
"""a declaration lives as long as its library object"""


def declare() -> None:
    """Imports torchvision, after declaring the two operators where that import fails without them.

    Raises:
        ImportError: torchvision is not installed.

    """
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
        if not missing or "torchvision::" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in missing:
            _library.define(_SCHEMAS[name])  # type: ignore[no-untyped-call]
        import torchvision  # noqa: F401
