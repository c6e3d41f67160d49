"""Heads: feature maps in, raw predictions out."""
