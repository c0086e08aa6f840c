"""A batch distributed over several processes, computed as one process would compute it.

Layers and losses that depend on more than one image (batch normalization, dropout, every sum or
mean over pixels) ask here whether the batch is larger than the part they see. Outside of a
distributed run all of this does nothing.
"""
