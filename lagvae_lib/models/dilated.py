"""The CNN decoder of Yang et al. (2017), a reference point of Table 1: residual blocks of dilated causal convolutions.

Sentences are [B, T] word ids from <s> to </s>; a word is predicted from those before it, as far as the blocks reach.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lagvae_lib.models.ops import Dropout, linear_cross_entropy
from lagvae_lib.models.text import initialise

PAIRS = 256  # (sentence, z) pairs seen at once without gradients


class DilatedBlock(nn.Module):
    """x + (1x1 to the narrow width, causal convolution of size 3, 1x1 back; a ReLU before each), on [B, C, T]."""

    def __init__(self, width: int, narrow: int, dilation: int):
        super().__init__()
        self.reach = 2 * dilation
        self.narrow = nn.Conv1d(width, narrow, 1)
        self.causal = nn.Conv1d(narrow, narrow, 3, dilation=dilation)
        self.widen = nn.Conv1d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.narrow(F.relu(x)))
        hidden = F.relu(self.causal(F.pad(hidden, (self.reach, 0))))
        return x + self.widen(hidden)


class DilatedDecoder(nn.Module):
    """p(x|z) = prod_t p(x_t | x_<t, z) by dilated convolutions over [word embedding; linear map of z] at every step.

    width: of the residual path, 1024 in the paper; narrow: inside a block, 512, which is also the embedding's.
    """

    def __init__(
        self,
        words: int,
        nz: int,
        embedding: int,
        hidden: int,
        dropout: float = 0.5,
        dilations: Sequence[int] = (1, 2, 4),
    ):
        super().__init__()
        self.nz = nz
        self.precision: torch.dtype | None = None
        self.embed = nn.Embedding(words, embedding)
        self.z_to_input = nn.Linear(nz, embedding)
        self.first = nn.Conv1d(2 * embedding, hidden, 1)
        self.blocks = nn.ModuleList(DilatedBlock(hidden, embedding, dilation) for dilation in dilations)
        self.vocabulary = nn.Linear(hidden, words, bias=False)
        self.dropout = Dropout(dropout)
        for module in (self.embed, self.vocabulary):
            initialise(module)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, [B, k] for x [B, T] and z [B, k, nz]."""
        samples = z.shape[1]
        copies, flat = x.repeat_interleave(samples, dim=0), z.flatten(0, 1)
        if torch.is_grad_enabled():
            return self._log_prob(copies, flat).view(-1, samples)
        parts = zip(copies.split(PAIRS), flat.split(PAIRS), strict=True)
        return torch.cat([self._log_prob(*part) for part in parts]).view(-1, samples)

    def _log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        hidden = self.dropout(self.hidden(x[:, :-1], z)).flatten(0, 1)
        nll = linear_cross_entropy(hidden, self.vocabulary.weight, x[:, 1:].flatten(), precision=self.precision)
        return -nll.view(len(x), -1).sum(1)

    def hidden(self, words: Tensor, z: Tensor) -> Tensor:
        """What the next word is read from at each of the words [B, T], for z [B, nz]: [B, T, hidden]."""
        code = self.z_to_input(z).unsqueeze(1).expand(-1, words.shape[1], -1)
        hidden = self.first(torch.cat([self.dropout(self.embed(words)), code], dim=2).transpose(1, 2))
        for block in self.blocks:
            hidden = block(hidden)
        return F.relu(hidden).transpose(1, 2)
