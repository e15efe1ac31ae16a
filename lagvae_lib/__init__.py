"""A runnable companion to He et al. (ICLR 2019), "Lagging Inference Networks and Posterior Collapse in VAEs".

What a model of one's own needs is importable from here: `Aggressive`, `Batch`, `Optimisers`, `Loss`, `minibatches` and
`mutual_information`.
"""

from importlib import import_module

HOMES = {
    "Aggressive": "lagvae_lib.inference.aggressive",
    "Batch": "lagvae_lib.inference",
    "Loss": "lagvae_lib.models.vae",
    "Optimisers": "lagvae_lib.inference",
    "minibatches": "lagvae_lib.own",
    "mutual_information": "lagvae_lib.own",
}
__all__ = list(HOMES)


def __getattr__(name: str):
    """Imported when it is first asked for: names of methods and data sets cost no PyTorch."""
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
