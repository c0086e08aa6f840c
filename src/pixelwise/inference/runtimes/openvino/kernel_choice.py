"""The faster kernels for convolutions on processors with AVX2 and without AVX-512.

OpenVINO's first choice there reads maps with the channels of a pixel side by side. oneDNN's older
kernels, which read blocks of 8 channels, are faster for 1x1 and depthwise convolutions, and
concatenate maps without a copy. OpenVINO selects them for a layer with the attribute
`PrimitivesPriority`, which its Python API cannot set on a loaded graph, but which may stand in a
file.
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
_CONVOLUTION = re.compile(rb'(<layer [^>]*type="(?:Group)?Convolution"[^>]*>\s*<data )')


def prefers_blocked_kernels() -> bool:
    """Return whether this process may use AVX2 but not AVX-512.

    The environment variable ONEDNN_MAX_CPU_ISA, which limits OpenVINO's kernels, counts as well.
    """
    flags = processor_flags()
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISA_LIMITS
    return "avx2" in flags and (limited or "avx512f" not in flags)


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
