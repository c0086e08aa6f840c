"""Peak memory of this process."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far, in bytes, or None if unknown."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage includes the parent's memory at the fork
        kibibytes = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return 1024 * int(kibibytes[1]) if kibibytes else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
