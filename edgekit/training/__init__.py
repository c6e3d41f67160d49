"""Training: targets, losses, distillation, and the Lightning module that runs them."""
