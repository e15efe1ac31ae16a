"""PyTorch, imported when it is first used and not before.

Importing it takes two processor seconds. Methods, profiles, records, tables and plots need none of it, but the values
that they are made of (an inference strategy, say) know how to compute with it. Their modules write
`from lagvae_lib.lazy import torch`, postpone their annotations, and are otherwise as they would be.
"""

from importlib import import_module


class _Torch:
    def __getattr__(self, name: str):
        value = getattr(import_module("torch"), name)
        setattr(self, name, value)  # the next use is as fast as torch's own
        return value


torch = _Torch()
