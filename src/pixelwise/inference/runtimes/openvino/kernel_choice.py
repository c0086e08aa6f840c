"""The faster kernels for separable networks on processors with AVX2 and without AVX-512.

OpenVINO's first choice there reads maps with the channels of a pixel side by side. oneDNN's older
kernels, which read blocks of 8 channels, are faster for 1x1 and depthwise convolutions, and
concatenate maps without a copy. For other convolutions they are not: DeepLabV3 on ResNet-50 does
not end within a minute. OpenVINO selects them for a layer with the attribute `PrimitivesPriority`,
which its Python API cannot set on a loaded graph, but which may stand in a file.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import openvino as ov
from pixelwise.processor import processor_flags

PRIORITY = b"cpu:jit_avx2_dw,cpu:jit_avx2_1x1,cpu:jit_avx2"
ISA_LIMITS = {"AVX2", "AVX2_VNNI", "AVX2_VNNI_2"}  # of oneDNN, which OpenVINO and PyTorch use
MAX_IMAGE_CHANNELS = 4  # the first convolution of a separable network may be dense
_CONVOLUTION = re.compile(rb'(<layer [^>]*type="(?:Group)?Convolution"[^>]*>\s*<data )')


def prefers_blocked_kernels() -> bool:
    """Return whether this process may use AVX2 but not AVX-512.

    The environment variable ONEDNN_MAX_CPU_ISA, which limits OpenVINO's kernels, counts as well.
    """
    flags = processor_flags()
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISA_LIMITS
    return "avx2" in flags and (limited or "avx512f" not in flags)


def is_separable(model: ov.Model) -> bool:
    """Return whether all convolutions except the first are 1x1 or depthwise."""
    shapes = [
        node.input_value(1).get_shape()
        for node in model.get_ops()
        if node.get_type_name() in {"Convolution", "GroupConvolution"}
    ]
    return all(
        # (groups, 1, 1, height, width) if depthwise, (out, in, height, width) if dense
        list(shape[1:3]) == [1, 1]
        if len(shape) == 5
        else list(shape[2:]) == [1, 1] or shape[1] <= MAX_IMAGE_CHANNELS
        for shape in shapes
    )


def read_with_blocked_kernels(core: ov.Core, path: Path) -> ov.Model:
    """Read a float32 model that prefers the kernels for blocks of channels.

    Results differ from the other kernels' by rounding. Without a folder for temporary files, the
    model is read as it is.

    Raises:
        RuntimeError: If OpenVINO cannot read the model.
    """
    graph = _CONVOLUTION.sub(rb'\1PrimitivesPriority="%s" ' % PRIORITY, path.read_bytes())
    try:
        with tempfile.TemporaryDirectory(prefix="pixelwise-") as folder:
            changed = Path(folder) / path.name
            changed.write_bytes(graph)
            return core.read_model(changed, path.with_suffix(".bin"))
    except OSError:
        return core.read_model(path)
