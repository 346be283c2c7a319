"""Flax Linen models: `model.apply(variables, images [B, H, W, C] float32, train=...) -> logits`."""
