"""Train on batches that are split over several processes, with the result of a single process.

Layers and losses that depend on more than one image (batch normalization, dropout, every sum or
mean over pixels) ask this package whether they see a whole batch or a shard of it. In a run with a
single process all of this does nothing.
"""
