"""Datasets: find the layout of a folder of images and masks, check it, and read it as arrays."""
