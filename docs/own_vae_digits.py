"""A convolutional VAE on scikit-learn's digits, trained aggressively. Run: python docs/own_vae_digits.py [epochs]"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lagvae_lib import Aggressive, Batch, Loss, Optimisers, minibatches, mutual_information


class ConvVAE(nn.Module):
    """p(x|z) of 8x8 grey images, q(z|x) Gaussian."""

    def __init__(self, nz: int = 4):
        super().__init__()
        down = nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        up = nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(128, 2 * nz))
        self.decoder = nn.Sequential(nn.Linear(nz, 128), nn.ReLU(), nn.Unflatten(1, (32, 2, 2)), *up)

    def encode(self, x):
        """mu and logvar of q(z|x), [B, nz] each, of images [B, 1, 8, 8]."""
        return self.encoder(x).chunk(2, dim=1)

    def loss(self, x, kl_weight):
        """The negative ELBO of each image, nats, [B]."""
        mu, logvar = self.encode(x)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        reconstruction = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum((1, 2, 3))
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return Loss(reconstruction + kl_weight * kl, reconstruction, kl)

    def encoder_parameters(self):
        """phi."""
        return self.encoder.parameters()

    def decoder_parameters(self):
        """theta."""
        return self.decoder.parameters()


def main(epochs: int = 4) -> float:
    """Train; returns the mutual information at the end, nats per image."""
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
    loader = torch.utils.data.DataLoader(images[:1500], 50, shuffle=True)
    validation = images[1500:].split(50)
    model = ConvVAE()
    optimisers = Optimisers(
        torch.optim.SGD(model.encoder_parameters(), lr=0.01), torch.optim.SGD(model.decoder_parameters(), lr=0.01)
    )
    algorithm, draw = Aggressive(), minibatches(loader)
    state = algorithm.begin()
    for epoch in range(epochs):
        model.train()
        steps = [algorithm.step(model, Batch(x, draw), optimisers, state) for x in loader]
        mi = mutual_information(model, validation)
        state = algorithm.epoch_end(state, mi)
        loss = sum(float(step.loss.loss) for step in steps) / len(steps)
        print(f"epoch {epoch + 1}: loss {loss:.2f}, MI {mi:.2f}, {steps[-1].phase}")
    return mi


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
