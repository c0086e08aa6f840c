"""Training recipes: the schema, loading, and the recipes that ship with pixelwise.

Nothing here imports PyTorch.
"""
