"""A latent-variable model in which everything a VAE approximates is known: x = W z + m + s * noise.

z ~ N(0, I) in R^nz, noise ~ N(0, I) in R^nx. Evidence, posterior, ELBO, mutual information and the best
encoder are closed forms in float64, so a statement about VAEs can be held against the truth. With W at its
optimum it is probabilistic PCA (Tipping & Bishop 1999), the model in which Lucas et al. (2019) study
collapse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from lagvae_lib.models.gaussian import LOG_2PI, DiagonalGaussian, standard_log_prob, standard_noise


@dataclass(frozen=True, eq=False)
class LinearEncoder:
    """q(z|x) = N(A x + b, diag(exp(logvar))): amortised, with one variance for all x.

    weight A: [nz, nx], bias b: [nz], logvar: [nz].
    """

    weight: Tensor
    bias: Tensor
    logvar: Tensor

    def __call__(self, x: Tensor) -> DiagonalGaussian:
        """x [B, nx] -> q(z|x)."""
        mu = x @ self.weight.T + self.bias
        return DiagonalGaussian(mu, self.logvar.expand_as(mu))

    def decomposition(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E KL(q(z|x) || p(z)), I_q(x; z) and KL(q(z) || p(z)) for data N(mean, covariance), in nats.

        Each is its own closed form (Hoffman & Johnson 2016: the first is the sum of the other two).
        """
        centre = self.weight @ mean + self.bias
        spread = self.weight @ covariance @ self.weight.T
        noise = torch.diag(self.logvar.exp())
        kl = 0.5 * (noise.trace() + spread.trace() + centre @ centre - len(centre) - self.logvar.sum())
        mi = 0.5 * (torch.logdet(noise + spread) - self.logvar.sum())
        aggregate = MultivariateNormal(centre, noise + spread)
        prior = MultivariateNormal(torch.zeros_like(centre), torch.eye(len(centre), dtype=centre.dtype))
        return kl, mi, torch.distributions.kl_divergence(aggregate, prior)


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """p(x, z) with exact answers. Quantities are in nats per example, and differentiable in the parameters.

    weight W: [nx, nz]; noise s: positive scalar tensor; mean m: [nx]. All float64.
    Raises ValueError for another dtype, a mean of the wrong length or a noise that is not positive.
    """

    weight: Tensor
    noise: Tensor
    mean: Tensor

    def __post_init__(self):
        if any(t.dtype != torch.float64 for t in (self.weight, self.noise, self.mean)):
            raise ValueError("weight, noise and mean must be float64")
        if self.weight.ndim != 2 or self.mean.shape != self.weight.shape[:1] or self.noise.ndim != 0:
            raise ValueError("weight must be [nx, nz], mean [nx] and noise a scalar")
        if not self.noise > 0:
            raise ValueError(f"noise must be positive, not {float(self.noise)}")

    @property
    def covariance(self) -> Tensor:
        """Cov(x) = W W' + s^2 I, [nx, nx]."""
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        return self.weight @ self.weight.T + self.noise.square() * eye

    @property
    def precision(self) -> Tensor:
        """Precision of p(z|x), I + W'W / s^2, [nz, nz]: the same for every x."""
        eye = torch.eye(self.weight.shape[1], dtype=torch.float64)
        return eye + self.weight.T @ self.weight / self.noise.square()

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n draws: x [n, nx] and the z [n, nz] they came from."""
        z = standard_noise((n, self.weight.shape[1]), self.weight, generator)
        noise = standard_noise((n, len(self.mean)), self.weight, generator)
        return z @ self.weight.T + self.mean + self.noise * noise, z

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), under the name a decoder has it: x [B, nx], z [B, k, nz] -> [B, k]."""
        error = x[:, None] - z @ self.weight.T - self.mean
        constant = len(self.mean) * (LOG_2PI + 2 * self.noise.log())
        return -0.5 * (error.square().sum(-1) / self.noise.square() + constant)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z): x [B, nx], z [B, k, nz] -> [B, k]."""
        return self.log_prob(x, z) + standard_log_prob(z)

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x), the evidence: [B, nx] -> [B]."""
        return MultivariateNormal(self.mean, self.covariance).log_prob(x)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z|x), a batch of B Gaussians with means [B, nz] and one covariance [nz, nz]."""
        projection = (x - self.mean) @ self.weight / self.noise.square()
        return MultivariateNormal(torch.linalg.solve(self.precision, projection.T).T, precision_matrix=self.precision)

    def log_posterior(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(z|x): x [B, nx], z [B, k, nz] -> [B, k]."""
        return self.posterior(x).log_prob(z.transpose(0, 1)).T

    def elbo(self, x: Tensor, q: DiagonalGaussian) -> Tensor:
        """E_q log p(x|z) - KL(q || p(z)) for any diagonal q, [B]; it does not go through log p(x)."""
        blur = (self.weight.square().sum(0) * q.logvar.exp()).sum(-1) / self.noise.square()
        return self.log_prob(x, q.mu[:, None])[:, 0] - 0.5 * blur - q.kl()

    def kl_to_posterior(self, x: Tensor, q: DiagonalGaussian) -> Tensor:
        """KL(q || p(z|x)), [B]: the ELBO's gap, and the lag of an encoder."""
        precision, shift = self.precision, q.mu - self.posterior(x).mean
        spread = (precision.diagonal() * q.logvar.exp()).sum(-1)
        distance = ((shift @ precision) * shift).sum(-1)
        return 0.5 * (spread + distance - len(precision) - q.logvar.sum(-1) - torch.logdet(precision))

    def optimal_encoder(self) -> LinearEncoder:
        """The diagonal encoder with the highest ELBO for every x.

        Its mean is the posterior's; its variance is 1 / diag(precision), which is the posterior's own
        variance exactly where W'W is diagonal.
        """
        weight = torch.linalg.solve(self.precision, self.weight.T) / self.noise.square()
        return LinearEncoder(weight, -weight @ self.mean, -self.precision.diagonal().log())

    def mutual_information(self) -> Tensor:
        """I(x; z) = 1/2 log det(I + W'W / s^2) under the model, a scalar."""
        return 0.5 * torch.logdet(self.precision)

    def expected_log_marginal(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """E log p(x) for data with this mean [nx] and covariance [nx, nx], a scalar."""
        model, shift = self.covariance, mean - self.mean
        scatter = torch.linalg.solve(model, covariance + torch.outer(shift, shift)).trace()
        return -0.5 * (len(mean) * LOG_2PI + torch.logdet(model) + scatter)


@dataclass(frozen=True, eq=False)
class LinearVAE:
    """A linear-Gaussian decoder with an encoder beside it, in the form in which metrics take any VAE.

    decoder: its `log_prob(x, z)` is log p(x|z). encoder: x [B, nx] -> DiagonalGaussian.
    """

    decoder: LinearGaussian
    encoder: Callable[[Tensor], DiagonalGaussian]

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """q(z|x) of a batch."""
        return self.encoder(x)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log p(z): [B, k, nz] -> [B, k]."""
        return standard_log_prob(z)


def ppca(mean: Tensor, covariance: Tensor, nz: int, noise: float) -> LinearGaussian:
    """The W of highest likelihood for data with these moments and a fixed noise s (Tipping & Bishop 1999).

    W = U (L - s^2)^(1/2) over the nz leading eigenpairs of the covariance, from the largest eigenvalue down.
    A dimension whose eigenvalue is at most s^2 gets a column of zeros: it is collapsed at the optimum.
    Raises ValueError unless 1 <= nz <= nx.
    """
    if not 1 <= nz <= len(mean):
        raise ValueError(f"nz must be between 1 and {len(mean)}, not {nz}")
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:nz], vectors.flip(1)[:, :nz]
    return LinearGaussian(
        vectors * (values - noise**2).clamp(min=0).sqrt(), torch.tensor(noise, dtype=torch.float64), mean
    )
