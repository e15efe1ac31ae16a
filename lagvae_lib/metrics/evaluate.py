"""What is reported about a model: a few metrics on validation data every epoch, all of them on test data at the end.

All values are nats per example, means over the examples of the split.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lagvae_lib.metrics import mutual_information as mi
from lagvae_lib.metrics.active_units import active_units, threshold_curve, variance_of_means
from lagvae_lib.metrics.nll import importance_weighted_curve
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.vae import Autoregressive

THRESHOLDS = tuple(10.0 ** (k / 4) for k in range(-16, 5))  # 1e-4 to 10, the paper's 0.01 among them
IW_SAMPLES = (1, 10, 100, 500)
KL_DRAWS = 10  # samples of z per example where KL(q || p) has no closed form


def spread_examples(batches: Iterable[Tensor], examples: int) -> list[Tensor]:
    """`examples` examples spread over a split, in whole batches but for the last one, which is cut.

    A batch is kept when fewer than its share were kept up to its end, so that short and long documents (batches come
    in order of length) are represented in the split's proportions.
    """
    whole = list(batches)
    total, seen, count, kept = sum(len(x) for x in whole), 0, 0, []
    for x in whole:
        seen += len(x)
        if count * total < min(examples, total) * seen:
            kept.append(x[: examples - count])
            count += len(kept[-1])
    return kept


@torch.no_grad()
def encode(model: nn.Module, batches) -> tuple[DiagonalGaussian, list[int]]:
    """q(z|x) of a whole split, [N, nz], in the order of its batches, and the batches' sizes."""
    parts = [model.encode(x) for x in batches]
    q = DiagonalGaussian(torch.cat([p.mu for p in parts]), torch.cat([p.logvar for p in parts]))
    return q, [len(part.mu) for part in parts]


@torch.no_grad()
def mean_kl(model: nn.Module, q: DiagonalGaussian, generator: torch.Generator) -> float:
    """Mean KL(q(z|x) || p(z)): closed under N(0, I), by Monte Carlo under any other prior."""
    z = q.mu[:, None] if model.prior.closed_form else q.rsample(KL_DRAWS, generator=generator)
    return float(model.prior.kl(q, z).mean())


def information(
    model: nn.Module, q: DiagonalGaussian, sizes: list[int], generator: torch.Generator, draws: int = 1
) -> dict[str, float]:
    """KL, MI by the paper's estimator and over all examples, and active units, of encoded examples.

    draws: samples of z per example over which the paper's estimator is averaged. The paper's is 1; its noise has
    variance nz / 2N, so 10 draws of 1,000 examples have as little noise as the paper's 10,000 examples.
    """
    everything = mi.same_sample(q.mu, q.logvar, generator=generator)
    return {
        "kl": mean_kl(model, q, generator),
        "mi": sum(mi.paper_estimate(q.mu, q.logvar, sizes, generator) for _ in range(draws)) / draws,
        "mi_large": everything.lower,
        "au": active_units(variance_of_means([q.mu])),
    }


@torch.no_grad()
def validate(model: nn.Module, batches, generator: torch.Generator, draws: int = 1) -> dict[str, float]:
    """loss (one-sample negative ELBO at weight 1, or the exact NLL), reconstruction, kl, mi, mi_large, au."""
    if isinstance(model, Autoregressive):
        nll = exact_nll(model, batches)
        return {"loss": nll, "reconstruction": nll, "kl": 0.0, "mi": 0.0, "mi_large": 0.0, "au": 0}
    q, sizes = encode(model, batches)
    reconstruction = -reconstruction_log_prob(model, batches, q, sizes, generator).mean()
    values = information(model, q, sizes, generator, draws)
    return {"loss": float(reconstruction) + values["kl"], "reconstruction": float(reconstruction), **values}


@torch.no_grad()
def reconstruction_log_prob(model, batches, q: DiagonalGaussian, sizes: list[int], generator) -> Tensor:
    """log p(x|z) with one sample z of q(z|x) for every example, [N]."""
    z = q.rsample(1, generator=generator)
    return torch.cat([model.decoder.log_prob(x, part)[:, 0] for x, part in zip(batches, z.split(sizes), strict=True)])


@torch.no_grad()
def exact_nll(model: Autoregressive, batches) -> float:
    """-log p(x) of an autoregressive model."""
    return float(-torch.cat([model.log_prob(x) for x in batches]).double().mean())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches,
    generator: torch.Generator,
    iw_samples=IW_SAMPLES,
    draws: int = 1,
    nll_examples: int | None = None,
) -> dict:
    """The test-set metrics of a run's record: the paper's nll, kl, mi and au, and those that complete them.

    iw_samples, draws, nll_examples: see `config.settings.Evaluation`.
    """
    model.eval()
    part = batches if nll_examples is None else spread_examples(batches, nll_examples)
    if isinstance(model, Autoregressive):
        nll = exact_nll(model, part)
        return {"nll": nll, "elbo": -exact_nll(model, batches), "kl": 0.0, "mi": 0.0, "au": 0, "nll_is_exact": True}
    q, sizes = encode(model, batches)
    values = information(model, q, sizes, generator, draws)
    elbo = float(reconstruction_log_prob(model, batches, q, sizes, generator).double().mean()) - values["kl"]
    bounds = importance_weighted_nll(model, part, generator, iw_samples)
    return {
        "nll": bounds["nll"][str(max(iw_samples))],
        "elbo": elbo,
        **values,
        "nll_is_exact": False,
        "kl_is_exact": model.prior.closed_form,
        "nll_standard_error": bounds["standard_error"],
        "nll_examples": sum(len(x) for x in part),
        "nll_by_samples": bounds["nll"],
        **_beside(q, values, generator),
        **({"kl_per_dim": q.kl_per_dim().mean(0).tolist()} if model.prior.closed_form else {}),
    }


def _beside(q: DiagonalGaussian, values: dict, generator: torch.Generator) -> dict:
    """The metrics that show what the paper's can and cannot say (artefacts of MI, of Figure 5 and of AU)."""
    variance = variance_of_means([q.mu])
    curve = mi.same_sample_curve(q.mu, q.logvar, (32, 50, 500, len(q.mu)), generator)
    return {
        "aggregate_kl": mi.aggregate_kl(values["kl"], values["mi"]),
        "aggregate_kl_large": mi.aggregate_kl(values["kl"], values["mi_large"]),
        "mi_by_batch": [vars(bounds) for bounds in curve],
        "variance_of_means": variance.tolist(),
        "au_by_threshold": {"thresholds": list(THRESHOLDS), "au": threshold_curve(variance, THRESHOLDS)},
    }


@torch.no_grad()
def importance_weighted_nll(model, batches, generator: torch.Generator, iw_samples=IW_SAMPLES) -> dict:
    """Mean importance-weighted bounds on -log p(x) for each number of samples, and the last one's standard error."""
    bounds = torch.cat([importance_weighted_curve(model, x, iw_samples, generator) for x in batches]).double()  # [N, K]
    return {
        "nll": {str(k): float(-column.mean()) for k, column in zip(iw_samples, bounds.t(), strict=True)},
        "standard_error": float(bounds[:, -1].std() / len(bounds) ** 0.5),
    }
