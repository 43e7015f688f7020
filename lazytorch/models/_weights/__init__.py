"""Weights of other zoos and of files: sources, names, fitting, loading."""
