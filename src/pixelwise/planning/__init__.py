"""Choose training settings from the data and the machine. Free of PyTorch: the doctor uses it."""
