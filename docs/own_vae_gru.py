"""A GRU VAE on padded sentences with their lengths, trained aggressively. Run: python docs/own_vae_gru.py [epochs]"""

import random
import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from lagvae_lib import Aggressive, Batch, Loss, Optimisers, minibatches, mutual_information

WORDS = 20


class GRUVAE(nn.Module):
    """A batch is a pair: words [B, T], padded, and how many of each row count, [B]."""

    def __init__(self, nz: int = 4, hidden: int = 24):
        super().__init__()
        self.words_in, self.reader = nn.Embedding(WORDS, 16), nn.GRU(16, hidden, batch_first=True)
        self.moments = nn.Linear(hidden, 2 * nz)
        self.words_out, self.writer = nn.Embedding(WORDS, 16), nn.GRU(16 + nz, hidden, batch_first=True)
        self.logits = nn.Linear(hidden, WORDS)

    def encode(self, batch):
        """mu and logvar of q(z|x), [B, nz] each."""
        x, lengths = batch
        packed = pack_padded_sequence(self.words_in(x), lengths, batch_first=True, enforce_sorted=False)
        return self.moments(self.reader(packed)[1][0]).chunk(2, dim=1)

    def loss(self, batch, kl_weight):
        """The negative ELBO of each sentence, nats, [B]."""
        x, lengths = batch
        mu, logvar = self.encode(batch)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        inputs = torch.cat([self.words_out(x[:, :-1]), z[:, None].expand(-1, x.shape[1] - 1, -1)], dim=2)
        logits = self.logits(self.writer(inputs)[0])
        counts = torch.arange(1, x.shape[1]) < lengths[:, None]
        reconstruction = (F.cross_entropy(logits.transpose(1, 2), x[:, 1:], reduction="none") * counts).sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return Loss(reconstruction + kl_weight * kl, reconstruction, kl)

    def encoder_parameters(self):
        """phi."""
        return [p for part in (self.words_in, self.reader, self.moments) for p in part.parameters()]

    def decoder_parameters(self):
        """theta."""
        return [p for part in (self.words_out, self.writer, self.logits) for p in part.parameters()]


def sentences(batches: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 8 to 32 sentences of 4 to 12 words, each with words of one half of the vocabulary alone."""
    rng, made = random.Random(seed), []
    for _ in range(batches):
        firsts = [rng.choice((0, WORDS // 2)) for _ in range(rng.choice((8, 16, 32)))]
        rows = [torch.tensor([k + rng.randrange(WORDS // 2) for _ in range(rng.randint(4, 12))]) for k in firsts]
        made.append((pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])))
    return made


def predicted_words(batch) -> int:
    """How many words of a batch the model predicts: all but each row's first."""
    return int((batch[1] - 1).sum())


def main(epochs: int = 3) -> float:
    """Train; returns the mutual information at the end, nats per sentence."""
    torch.manual_seed(0)
    batches, validation = sentences(20), sentences(5, seed=1)
    model = GRUVAE()
    optimisers = Optimisers(
        torch.optim.SGD(model.encoder_parameters(), lr=0.5), torch.optim.SGD(model.decoder_parameters(), lr=0.5)
    )
    algorithm, draw = Aggressive(), minibatches(batches)
    state = algorithm.begin()
    for epoch in range(epochs):
        model.train()
        for x in batches:
            step = algorithm.step(model, Batch(x, draw, units=predicted_words), optimisers, state)
        mi = mutual_information(model, validation)
        state = algorithm.epoch_end(state, mi)
        print(f"epoch {epoch + 1}: loss of the last batch {float(step.loss.loss):.2f}, MI {mi:.2f}, {step.phase}")
    return mi


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
