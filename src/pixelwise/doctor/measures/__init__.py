"""What can be measured on one image: alignment, objects, fingerprints. Arrays in, numbers out."""
