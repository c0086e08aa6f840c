"""Labels that are likely wrong: regions in which a network that has not seen them contradicts."""
