"""The paper's text models (section 5.1 and appendix): LSTM encoder, LSTM decoder with z in every step.

Sentences are [B, T] word ids, all of one length, from <s> to </s>; T-1 words are predicted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.ops import Dropout, linear_cross_entropy, lstm, lstm_step

# Hidden units up to which torch's recurrence is faster than ours on a processor: with AVX2 where they are trained, or
# scored with one sample; with AVX512 in any case, and there it is beyond that too where they are trained.
SMALL = 128
STATES = 2**26  # numbers in the hidden states that exist at once on a GPU without gradients: 256 MB
TOKENS = 2048  # about as many are scored by one product with the vocabulary when there are no gradients


@dataclass(frozen=True)
class Start:
    """The parameters that a text model begins with; the defaults are the released code's.

    weights, embeddings: uniform in plus and minus this. forget_bias: added to the forget gates' bias of every LSTM, so
    that at the start a cell keeps sigmoid(forget_bias) of its state from one word to the next.
    """

    weights: float = 0.01
    embeddings: float = 0.1
    forget_bias: float = 0.0


def initialise(module: nn.Module, start: Start = Start()) -> None:
    """Draw every parameter as `start` says."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -start.weights, start.weights)
    for child in module.modules():
        if isinstance(child, nn.Embedding):
            nn.init.uniform_(child.weight, -start.embeddings, start.embeddings)
        if isinstance(child, nn.LSTM) and start.forget_bias:
            with torch.no_grad():  # rows of the gates: input, forget, candidate, output
                child.bias_ih_l0[child.hidden_size : 2 * child.hidden_size] += start.forget_bias


class LSTMEncoder(nn.Module):
    """q(z|x) = N(mu, diag exp(logvar)), both linear in the last hidden state.

    start: the parameters to begin with; None: torch's own.
    """

    def __init__(self, words: int, nz: int, embedding: int, hidden: int, start: Start | None = Start()):
        super().__init__()
        self.embed = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding, hidden)
        self.linear = nn.Linear(hidden, 2 * nz, bias=False)
        if start is not None:
            initialise(self, start)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        _, (last, _) = self.lstm(self.embed(x.t()))
        return DiagonalGaussian(*self.linear(last[0]).chunk(2, dim=1))


class Share(NamedTuple):
    """What z adds at every step: to the gates, [rows, 4H], and to what the vocabulary is read from, [rows, H].

    gates: 0 where there is no z. output: None where z does not skip the LSTM.
    """

    gates: Tensor
    output: Tensor | None


class LSTMDecoder(nn.Module):
    """p(x|z) = prod_t p(x_t | x_<t, z); without z (nz = 0) it is the LSTM language model.

    z sets the first cell state (c0 = W z, h0 = tanh c0) and stands beside the word in every step's input. That input's
    projection is linear, so z's share of it is one bias per sentence instead of a longer input at each step.
    precision: dtype of the products with the vocabulary, see `linear_cross_entropy`.
    recurrence: "own", `ops.lstm`, which shares what it can; "torch", `nn.LSTM`, a single call for all steps; "auto":
        the faster of the two. skip: z reaches the output layer too, past the LSTM (Skip-VAE, Dieng et al. 2019).
    """

    def __init__(
        self,
        words: int,
        nz: int,
        embedding: int,
        hidden: int,
        dropout: float = 0.5,
        skip: bool = False,
        start: Start = Start(),
    ):
        super().__init__()
        self.nz, self.embedding_size = nz, embedding
        self.precision: torch.dtype | None = None
        self.recurrence = "auto"
        self.embed = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding + nz, hidden)
        self.z_to_cell = nn.Linear(nz, hidden, bias=False) if nz else None
        self.z_to_output = nn.Linear(nz, hidden, bias=False) if skip else None
        self.vocabulary = nn.Linear(hidden, words, bias=False)
        self.dropout = Dropout(dropout)
        initialise(self, start)

    def log_prob(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z) in nats, [B, k] for x [B, T] and z [B, k, nz] (k = 1 and z None without a latent variable)."""
        samples = 1 if z is None else z.shape[1]
        if not torch.is_grad_enabled() and self._by_torch(x, samples):
            return self._log_prob_pairs(x, z)
        if samples == 1 and torch.is_grad_enabled():
            return self._log_prob_whole(x, z if z is None else z[:, 0]).unsqueeze(1)
        if torch.is_grad_enabled():
            return torch.cat([self.log_prob(x, z[:, k : k + 1]) for k in range(samples)], dim=1)
        return self._log_prob_stepwise(x, z)

    def _log_prob_whole(self, x: Tensor, z: Tensor | None) -> Tensor:
        """[B]: all steps in one backward pass, for training."""
        h0, c0 = self._state(z, len(x))
        if self._by_torch(x):
            hidden = self._recur(x, z, h0, c0)  # [T-1, B, H]
        else:
            words = self._words(x[:, :-1].t())
            hidden = lstm(words if z is None else words + self._to_gates(z), self.lstm.weight_hh_l0, h0, c0)
        hidden = self._read(hidden, self._to_output(z)).flatten(0, 1)
        target = x[:, 1:].t().flatten()
        nll = linear_cross_entropy(hidden, self.vocabulary.weight, target, precision=self.precision)
        return -nll.view(-1, len(x)).sum(0)

    def _by_torch(self, x: Tensor, samples: int = 1) -> bool:
        if self.recurrence != "auto":
            return self.recurrence == "torch"
        trained, small = self.lstm.weight_hh_l0.requires_grad, self.lstm.hidden_size <= SMALL
        if x.is_cuda or not torch.is_grad_enabled():
            return x.is_cuda or (small and samples == 1)  # samples of one sentence share its words in ours
        wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
        return (trained or small) if wide else (trained and small)

    def _recur(self, x: Tensor, z: Tensor | None, h0: Tensor, c0: Tensor) -> Tensor:
        """Hidden states [T-1, B, H] by `self.lstm` itself, on words and z side by side."""
        inputs = self.dropout(self.embed(x[:, :-1].t()))
        if z is not None:
            inputs = torch.cat([inputs, z.expand(len(inputs), *z.shape)], dim=2)
        mode = self.lstm.training
        self.lstm.training = True  # else cuDNN keeps nothing for a backward pass; the layer has no dropout of its own
        try:
            return self.lstm(inputs, (h0.unsqueeze(0), c0.unsqueeze(0)))[0]
        finally:
            self.lstm.training = mode

    def _log_prob_pairs(self, x: Tensor, z: Tensor | None) -> Tensor:
        """[B, k]: without gradients, all steps at once for as many (sentence, z) pairs as `STATES` allows."""
        samples, steps = 1 if z is None else z.shape[1], x.shape[1] - 1
        index = torch.arange(len(x), device=x.device).repeat_interleave(samples)
        flat, size = z if z is None else z.flatten(0, 1), self.vocabulary.in_features
        parts = index.split(max(1, STATES // (steps * size)))
        codes = [None] * len(parts) if flat is None else flat.split(len(parts[0]))
        pairs = zip(parts, codes, strict=True)
        return torch.cat([self._log_prob_whole(x[rows], code) for rows, code in pairs]).view(len(x), samples)

    def _log_prob_stepwise(self, x: Tensor, z: Tensor | None) -> Tensor:
        """[B, k]: without gradients only the latest states are kept, and samples of one sentence share its words."""
        rows = len(x) if z is None else z.shape[0] * z.shape[1]
        h, c, share = self.start(z if z is None else z.flatten(0, 1), rows)
        samples, at_once = rows // len(x), max(1, TOKENS // rows)
        total = torch.zeros(rows, dtype=h.dtype, device=h.device)
        steps = zip(self._words(x[:, :-1].t()).split(at_once), x[:, 1:].t().split(at_once), strict=True)
        for words, target in steps:
            hidden = []
            for word in words:
                inputs = share.gates.view(len(x), samples, -1) + word.unsqueeze(1) if z is not None else word
                h, c = lstm_step(inputs.reshape(rows, -1), self.lstm.weight_hh_l0, h, c)
                hidden.append(self._read(h, share.output))
            target = target.repeat_interleave(samples, dim=1).flatten()
            nll = linear_cross_entropy(torch.cat(hidden), self.vocabulary.weight, target, precision=self.precision)
            total -= nll.view(-1, rows).sum(0)
        return total.view(len(x), samples)

    def _words(self, words: Tensor) -> Tensor:
        """What the words and the biases add to the gates: ids [...] -> [..., 4H]."""
        weight = self.lstm.weight_ih_l0[:, : self.embedding_size]
        return F.linear(self.dropout(self.embed(words)), weight, self.lstm.bias_ih_l0 + self.lstm.bias_hh_l0)

    def start(self, z: Tensor | None, rows: int) -> tuple[Tensor, Tensor, Share]:
        """First hidden and cell state [rows, H], and z's share in every step."""
        h0, c0 = self._state(z, rows)
        return h0, c0, Share(h0.new_zeros(()) if z is None else self._to_gates(z), self._to_output(z))

    def _state(self, z: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
        if z is None:
            zeros = self.vocabulary.weight.new_zeros(rows, self.vocabulary.in_features)
            return zeros, zeros
        c0 = self.z_to_cell(z)
        return torch.tanh(c0), c0

    def _to_gates(self, z: Tensor) -> Tensor:
        return F.linear(z, self.lstm.weight_ih_l0[:, self.embedding_size :])

    def _to_output(self, z: Tensor | None) -> Tensor | None:
        return None if self.z_to_output is None else self.z_to_output(z)

    def _read(self, hidden: Tensor, skipping: Tensor | None) -> Tensor:
        """What the vocabulary is read from: hidden states [..., rows, H], and z's share where it skips the LSTM."""
        hidden = self.dropout(hidden)
        return hidden if skipping is None else hidden + skipping

    def next_word(self, words: Tensor, h: Tensor, c: Tensor, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        """One step of generation: previous words [B] and state -> log p(next word) [B, V] and the new (h, c)."""
        h, c = lstm_step(self._words(words) + share.gates, self.lstm.weight_hh_l0, h, c)
        return F.log_softmax(self.vocabulary(self._read(h, share.output)), dim=1), h, c
