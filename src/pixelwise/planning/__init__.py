"""Choose training settings from the data and the machine, without importing PyTorch."""
