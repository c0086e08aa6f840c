"""What can be measured on one picture: alignment, objects, fingerprints. Arrays in, numbers out."""
