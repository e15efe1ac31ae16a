"""A check of a run's NLL: annealed importance sampling beside the importance-weighted bound.

Both on the same stated test examples and with the weights that are released beside a record, in half precision; so the
two are to be compared with each other, and differ from the record's own bound by that rounding.
"""

import time

import torch

from lagvae_lib import atomic
from lagvae_lib.config.profiles import Config
from lagvae_lib.data.loading import Data
from lagvae_lib.errors import BadValue
from lagvae_lib.metrics.ais import annealed
from lagvae_lib.metrics.evaluate import spread_examples
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models.vae import Autoregressive
from lagvae_lib.numerics import numerics
from lagvae_lib.runs.record import folder_of
from lagvae_lib.runs.train import threads_for, trained_model

EXAMPLES, STEPS, LEAPFROG, CHAINS = 50, 50, 3, 8


def compare(
    config: Config, data: Data, device: str = "cpu", examples: int = EXAMPLES, steps: int = STEPS, chains: int = CHAINS
) -> dict:
    """Mean NLLs by AIS and by the bound, nats per example, and of their difference the mean, its standard error over
    examples and the largest value. Written to `ais.json` beside the record.

    Raises ValueError for a model whose likelihood is exact or that has two levels of z, FileNotFoundError where the
    weights are not at hand.
    """
    for name, value, least in (("examples", examples, 2), ("steps", steps, 2), ("chains", chains, 1)):
        if value < least:  # of one example there is no spread, and one step makes no transition
            raise BadValue(f"{name} must be at least {least}, not {value}")
    model = trained_model(config, data, device)
    if isinstance(model, Autoregressive):
        raise BadValue(f"the likelihood of {config.method.name} is exact: there is nothing to check by AIS")
    if config.method.variant.levels == 2:
        raise BadValue(f"{config.method.name} has two levels of z, and AIS here anneals one")
    model = config.method.inference.evaluated(model)
    part, start = spread_examples(data.test.to(device), examples), time.process_time()
    generator = torch.Generator().manual_seed(config.seed)
    options = {"steps": steps, "leapfrog": LEAPFROG, "chains": chains, "start": "posterior"}
    samples = config.evaluation.iw_samples
    with threads_for(config), numerics(config.precision):  # as the run was
        found = [annealed(model, x, generator=generator, **options) for x in part]
        by_bound = torch.cat([importance_weighted(model, x, samples, generator) for x in part])
    by_ais = torch.cat([ais.log_prob for ais in found])
    gain = (by_ais - by_bound).cpu()
    record = {
        "examples": len(gain),
        **options,
        "nll_ais": -by_ais.mean().item(),
        "nll_bound": -by_bound.mean().item(),
        "bound_samples": samples,
        "gain": gain.mean().item(),
        "gain_standard_error": gain.std().item() / len(gain) ** 0.5,
        "gain_largest": gain.max().item(),
        "acceptance": torch.cat([ais.acceptance for ais in found]).mean().item(),
        "effective_chains": torch.cat([ais.effective_sample_size for ais in found]).mean().item(),
        "cpu_seconds": round(time.process_time() - start, 1),
    }
    atomic.write_json(folder_of(config) / "ais.json", record)
    return record
