"""Backbones: image in, feature maps out."""
