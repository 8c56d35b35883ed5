"""Customer segments: features, training, scoring."""
