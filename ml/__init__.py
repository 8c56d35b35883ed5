"""Customer segments: features through the API, training, judging, and what is published of a model."""
