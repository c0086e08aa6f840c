"""Functions that numba compiles for this machine, and the threads that share their work.

numba is an extra. Nothing here imports it before it is needed: `require_numba` says so where it is
missing.
"""

from pixelwise.compiled.needed import numba_is_there, require_numba

__all__ = ["numba_is_there", "require_numba"]
