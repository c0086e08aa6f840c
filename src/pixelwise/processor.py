"""What the processor of this machine has instructions for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Flags in /proc/cpuinfo of processors that multiply numbers of a precision faster than float32: of
# x86 (VNNI, AMX, AVX512-BF16) and of ARM (dot product and matrix products of 8 bits, BF16).
FLAGS = {
    "int8": {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
}
NAMES = {"int8": "8-bit", "bf16": "bfloat16"}


def missing_instructions(precision: str) -> str | None:
    """Return a sentence if this processor lacks fast instructions for a precision, else None.

    It is also None where the system does not list what its processor has, as outside Linux.

    Args:
        precision: A key of FLAGS.
    """
    flags = processor_flags()
    if not flags or flags & FLAGS[precision]:
        return None
    return (
        f"this processor has no {NAMES[precision]} instructions (such as VNNI or AMX), so "
        f"{precision} is hardly faster than float32 here"
    )


@cache
def processor_flags() -> frozenset[str]:
    """Return the flags of this machine's processor, empty if the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return frozenset()
    words = (line.partition(":") for line in lines)
    named = (value for key, _, value in words if key.strip().lower() in {"flags", "features"})
    return frozenset(next(named, "").split())
