"""Planned: customer segments (features, training, scoring). Nothing is here yet."""
