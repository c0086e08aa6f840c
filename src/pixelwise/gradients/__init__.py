"""Operations of a training step whose plain form in PyTorch is slow on a CPU.

Each gives the values and the gradients of the plain one, to rounding. `resizing` needs PyTorch
alone, and is used wherever there are gradients on a CPU. The others are compiled by numba and have
to be asked for: `pixelwise.layers.use_compiled`. They are imported where they are used, for numba
is an extra.
"""
