"""Data that this package makes itself, from a seed."""
