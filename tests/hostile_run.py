"""Run commands on hostile files in a separate process with limited memory.

`python hostile_run.py JOBS.json RESULTS.json`: JOBS is a list of command lines, or of {"path",
"mask"} to decode one file as an image or a mask. RESULTS contains, for each job, the exit code, the
standard output and error, the seconds of CPU time, and the traceback of an unexpected exception.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

MEMORY = 6 << 30


def decode(path: Path, *, as_mask: bool) -> int:
    """Decode a file; returns the exit code that a command would have."""
    from pixelwise.data.image_files import read_raw
    from pixelwise.data.layouts.pairing import mask_source
    from pixelwise.errors import InputError

    try:
        if as_mask:
            mask_source(path).read((24, 32))
        else:
            read_raw(path)
    except InputError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    return 0


def run(job: Any) -> dict[str, Any]:
    from pixelwise.cli import main

    err, out = io.StringIO(), io.StringIO()
    code: object = None
    unexpected = ""
    start = time.process_time()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            if isinstance(job, dict):
                code = decode(Path(job["path"]), as_mask=job["mask"])
            else:
                sys.argv = ["pixelwise", *job]
                main()
        except SystemExit as exit_:
            code = exit_.code
        except BaseException:
            unexpected = traceback.format_exc()
    seconds = time.process_time() - start
    return {
        "job": job,
        "code": code,
        "err": err.getvalue(),
        "out": out.getvalue(),
        "seconds": seconds,
        "traceback": unexpected,
    }


if __name__ == "__main__":
    jobs, results = map(Path, sys.argv[1:])
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
    done = [run(job) for job in json.loads(jobs.read_text())]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    results.write_text(json.dumps({"peak": peak, "done": done}))
