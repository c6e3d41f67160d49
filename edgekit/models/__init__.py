"""The networks: blocks, backbones, heads, and the detectors made of them."""
