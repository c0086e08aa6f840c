"""Studies of a dataset: honest scores, and labels that are likely wrong."""
