"""Operations that are faster on a CPU than PyTorch's own, and their support for numba.

Each operation has the values and gradients of PyTorch's, up to rounding. `resize_gradient` needs
only PyTorch. The others are compiled by numba, which is an optional dependency: they are imported
where they are used, and enabled by `pixelwise.layers.use_compiled`.
"""
