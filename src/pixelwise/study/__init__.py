"""Studies of the samples: how much data is enough, which labels are wrong, what to label next."""
