"""The same model, training steps and evaluations, written the way a textbook would.

`nn.LSTM` with z concatenated to the word at every step, all logits at once, automatic differentiation through encoder
and decoder in every step, one `loss.item()` a step. Parameters have the names of `lagvae_lib.models`, so that both
load the same values; dropout and noise are drawn in the same order and layout, so that one seed gives both the same
noise, and the same masks where both are given one `Dropout`. Nothing here is used by the library.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

MAX_NORM = 5.0


class Encoder(nn.Module):
    """q(z|x): mean and log variance [B, nz], linear in the last hidden state."""

    def __init__(self, words: int, nz: int, embedding: int, hidden: int):
        super().__init__()
        self.embed = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding, hidden)
        self.linear = nn.Linear(hidden, 2 * nz, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, (last, _) = self.lstm(self.embed(x.t()))
        return self.linear(last[0]).chunk(2, dim=1)


class Decoder(nn.Module):
    """p(x|z): x [B, T], z [B, nz]."""

    def __init__(self, words: int, nz: int, embedding: int, hidden: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding + nz, hidden)
        self.z_to_cell = nn.Linear(nz, hidden, bias=False)
        self.vocabulary = nn.Linear(hidden, words, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits of the words x[:, 1:], [T-1, B, V]."""
        words = self.dropout(self.embed(x[:, :-1].t()))  # [T-1, B, E]
        inputs = torch.cat([words, z.expand(len(words), *z.shape)], dim=2)
        c0 = self.z_to_cell(z).unsqueeze(0)
        hidden, _ = self.lstm(inputs, (torch.tanh(c0), c0))
        return self.vocabulary(self.dropout(hidden))

    def nll(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x|z), [B] nats."""
        target = x[:, 1:].t().flatten()
        nll = F.cross_entropy(self(x, z).flatten(0, 1), target, reduction="none")
        return nll.view(-1, len(x)).sum(0)


class TextbookVAE(nn.Module):
    """A VAE of `Encoder` and `Decoder`, or of those of `benchmarks.textbook_images`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def loss(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        """The negative ELBO by one sample, [B] nats."""
        mu, logvar = self.encoder(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)
        return self.decoder.nll(x, z) + kl_weight * kl


def training_step(
    model: TextbookVAE,
    x: Tensor,
    optimisers: Iterable[torch.optim.Optimizer],
    clipped: Iterable[nn.Parameter],
    kl_weight: float = 1.0,
) -> float:
    """Loss, full backward, clipping of the gradients of `clipped`, a step of `optimisers`: inner, outer or joint."""
    model.zero_grad()
    loss = model.loss(x, kl_weight).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(clipped, MAX_NORM)
    for optimiser in optimisers:
        optimiser.step()
    return loss.item()


@torch.no_grad()
def importance_weighted(
    model: TextbookVAE, x: Tensor, k: int, generator: torch.Generator | None = None, chunk: int = 50
) -> Tensor:
    """log 1/k sum_i p(x, z_i) / q(z_i|x), [B]; `chunk` samples of every sentence have their logits at once."""
    mu, logvar = model.encoder(x)
    q, prior = Normal(mu.unsqueeze(1), torch.exp(0.5 * logvar).unsqueeze(1)), Normal(0.0, 1.0)
    noise = torch.randn(len(x), k, mu.shape[1], generator=generator)
    weights = []
    for eps in noise.split(chunk, dim=1):
        z = q.mean + q.stddev * eps  # [B, chunk, nz]
        copies = x.repeat_interleave(z.shape[1], dim=0)
        log_lik = -model.decoder.nll(copies, z.flatten(0, 1)).view(len(x), -1)
        weights.append(log_lik + prior.log_prob(z).sum(2) - q.log_prob(z).sum(2))
    return torch.cat(weights, dim=1).logsumexp(1) - math.log(k)


@torch.no_grad()
def grid_posterior(model: TextbookVAE, x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """log p(z|x) on the points `grid` [G], as weights [N, G] that sum to one, and E[z|x] [N]: point after point."""
    target, prior, log_joint = x[:, 1:].t().unsqueeze(2), Normal(0.0, 1.0), []
    for z in grid:
        log_p = F.log_softmax(model.decoder(x, z.expand(len(x), 1)), dim=2)  # [T-1, N, V]
        log_joint.append(log_p.gather(2, target).sum((0, 2)) + prior.log_prob(z))
    log_weights = torch.stack(log_joint, dim=1).log_softmax(1)
    return log_weights, log_weights.exp() @ grid
