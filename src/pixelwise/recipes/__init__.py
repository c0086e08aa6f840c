"""Recipes: the schema, and the recipes that ship with pixelwise. No PyTorch here."""
