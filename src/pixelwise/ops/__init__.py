"""Operations that are faster on a CPU than PyTorch's own, and the numba support they need.

Each operation has the values and gradients of the plain one, up to rounding. `resize_gradient` needs
only PyTorch. The others are compiled by numba, which is an extra: they are imported where they are
used, and enabled by `pixelwise.layers.use_compiled`.
"""
