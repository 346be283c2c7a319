"""How optimizers compare: the settings that stand for them, and pictures of them."""
