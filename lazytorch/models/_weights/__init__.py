"""Weights of torchvision, timm and files: sources, names, fitting to other inputs, loading."""
