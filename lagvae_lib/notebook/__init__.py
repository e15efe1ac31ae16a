"""What only notebooks use: parameters and runs, what is displayed, and which trained model is sampled."""

from lagvae_lib.notebook.parameters import BadParameter, Settings, settings, stop

__all__ = ["BadParameter", "Settings", "settings", "stop"]
