"""The two operations that text models spend their time in, with backward passes written out.

`lstm` is the LSTM recurrence alone: the inputs' projections are made for all steps at once by the caller, so that
what does not change along the sentence (z) or between samples (the words) is projected once. `linear_cross_entropy`
is the output layer together with the loss: on a processor it never holds the logits of more than `rows` tokens.
Neither computes a gradient that was not requested, which is what makes the encoder's inner loop cheap.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lagvae_lib.numerics import bfloat16_here

ROWS_ACCELERATOR = 8192  # the same on a GPU: 650 MB
ROWS = 256  # tokens whose logits exist at once: at 20,000 words 20 MB, small enough to stay near the processor
FEW = 2**19  # logits, 2 MB, that may exist all at once with their gradients on a processor too
LARGE = 2**18  # weights from which a product in bfloat16 saves more than the conversions cost
HELD = 4  # chunks of that many whose gradients of the logits wait, in a lower precision, for one product


def lower(precision: torch.dtype | None, like: Tensor) -> AbstractContextManager:
    """Convolutions in `precision` inside the block; None leaves them as they are."""
    return nullcontext() if precision is None else torch.autocast(like.device.type, precision)


class Dropout(torch.nn.Dropout):
    """`torch.nn.Dropout` with four masks from each random number of 64 bits on a processor. torch draws a Bernoulli
    number for each, which takes ten times as long: a tenth of a small model's step. p counts in units of 2^-16."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))


class _LSTM(Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
        gates, cells, hidden = _recur(inputs, w_hh, h0, c0)
        ctx.save_for_backward(gates, cells, hidden, w_hh)
        return hidden[1:]

    @staticmethod
    def backward(ctx, d_out: Tensor):
        gates, cells, hidden, w_hh = ctx.saved_tensors
        d_gates, d_h0, d_c0 = _recur_back(gates, cells, w_hh, d_out)
        d_w = d_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1) if ctx.needs_input_grad[1] else None
        return d_gates, d_w, d_h0, d_c0


def _gate_views(gates: Tensor) -> list[tuple[Tensor, ...]]:
    """The four gates (input, forget, candidate, output), each as one view per step."""
    return [part.unbind() for part in gates.chunk(4, dim=-1)]


def _recur(inputs: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence; gates [T, B, 4H] after their nonlinearities, cells and hidden states [T+1, B, H]."""
    gates = torch.empty_like(inputs)
    cells, hidden = inputs.new_empty(2, len(inputs) + 1, *h0.shape)
    cells[0], hidden[0] = c0, h0
    i, f, g, o = _gate_views(gates)
    both = gates[..., : 2 * h0.shape[1]].unbind()  # i and f share their nonlinearity
    x, all_gates, c, h, w_t = inputs.unbind(), gates.unbind(), cells.unbind(), hidden.unbind(), w_hh.t().contiguous()
    for t in range(len(inputs)):
        torch.addmm(x[t], h[t], w_t, out=all_gates[t])
        both[t].sigmoid_()
        g[t].tanh_()
        o[t].sigmoid_()
        torch.mul(f[t], c[t], out=c[t + 1])
        c[t + 1].addcmul_(i[t], g[t])
        torch.tanh(c[t + 1], out=h[t + 1])
        h[t + 1].mul_(o[t])
    return gates, cells, hidden


def _recur_back(gates: Tensor, cells: Tensor, w_hh: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates' pre-activations [T, B, 4H] and of the initial states, from those of the outputs."""
    d_gates, d_cell = _local_derivatives(gates, cells)
    size = cells.shape[-1]
    d_ifg, d_o = d_gates[..., : 3 * size].unflatten(-1, (3, size)).unbind(), d_gates[..., 3 * size :].unbind()
    all_gates, d_cell, d_y, f = d_gates.unbind(), d_cell.unbind(), d_out.unbind(), _gate_views(gates)[1]
    d_h, d_c = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
    for t in reversed(range(len(gates))):
        d_h += d_y[t]
        d_c.addcmul_(d_h, d_cell[t])
        d_ifg[t].mul_(d_c.unsqueeze(1))
        d_o[t].mul_(d_h)
        torch.mm(all_gates[t], w_hh, out=d_h)
        d_c *= f[t]
    return d_gates, d_h, d_c


def _local_derivatives(gates: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """For all steps at once, what does not depend on later ones: d c_t / d (i, f, g) and d h_t / d o side by side
    [T, B, 4H], each to its pre-activation, and d h_t / d c_t [T, B, H]."""
    d_gates = torch.empty_like(gates)
    (i, f, g, o), (d_i, d_f, d_g, d_o) = gates.chunk(4, dim=-1), d_gates.chunk(4, dim=-1)
    tanh_c = torch.tanh(cells[1:])
    _sigmoid_backward(g, i, grad_input=d_i)
    _sigmoid_backward(cells[:-1], f, grad_input=d_f)
    _tanh_backward(i, g, grad_input=d_g)
    _sigmoid_backward(tanh_c, o, grad_input=d_o)
    return d_gates, _tanh_backward(o, tanh_c, grad_input=tanh_c)


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def lstm(inputs: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
    """Hidden states [T, B, H] of an LSTM whose gate inputs are already projected.

    inputs: [T, B, 4H], everything but the recurrent term, W_ih x_t + b, gates in the order of `torch.nn.LSTM`.
    w_hh: [4H, H]. h0, c0: [B, H].
    """
    return _LSTM.apply(inputs, w_hh, h0, c0)


def lstm_step(inputs: Tensor, w_hh: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the same recurrence, for sampling and evaluation: inputs [B, 4H], h and c [B, H] -> new (h, c)."""
    gates = torch.addmm(inputs, h, w_hh.t())
    g = torch.tanh(gates.chunk(4, dim=-1)[2])
    i, f, _, o = gates.sigmoid_().chunk(4, dim=-1)  # all at once: contiguous, so faster than three of the four
    c = (f * c).addcmul_(i, g)
    return o * torch.tanh(c), c


class _OutputLayer:
    """Logits W h of one chunk of tokens after the other, and the gradients that go back through them.

    precision: of the products with W. gradient: of the product that is W's own gradient. Where that one is lower, the
    gradients of up to `HELD` chunks of logits wait for one product: a sum of such products, in W's precision, costs a
    fifth of what they do.
    """

    def __init__(self, weight: Tensor, rows: int, precision: torch.dtype | None, gradient: torch.dtype | None = None):
        self.weight = weight if precision is None else weight.to(precision)
        self.whole, self.lower, low = weight.new_empty(rows, len(weight)), precision is not None, gradient or precision
        self.low = None if low is None else weight.new_empty(HELD * rows, len(weight), dtype=low)
        self.d_weight, self.product, self.waiting = None, None, []

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, V], in memory that the next chunk takes."""
        whole = self.whole[: len(hidden)]
        if not self.lower:
            return torch.mm(hidden, self.weight.t(), out=whole)
        return whole.copy_(torch.mm(hidden.to(self.weight.dtype), self.weight.t(), out=self._slot(len(hidden))))

    def _slot(self, tokens: int) -> Tensor:
        """Where the chunk after those that wait has its numbers in the lower precision."""
        start = sum(map(len, self.waiting))
        return self.low[start : start + tokens]

    def back(self, d_logits: Tensor, hidden: Tensor, out: Tensor, trained: bool) -> None:
        """The gradient of `hidden` into `out`; W's is added up where it is trained."""
        low = None if self.low is None or not (self.lower or trained) else self._slot(len(hidden)).copy_(d_logits)
        if self.lower:
            out.copy_(low @ self.weight)
        else:
            torch.mm(d_logits, self.weight, out=out)
        if trained and low is None:
            self._sum(d_logits, hidden)
        elif trained:
            self.waiting.append(hidden)
            if len(self.waiting) == HELD:
                self.close()

    def close(self) -> Tensor | None:
        """W's gradient, with all that waited."""
        if self.waiting:
            hidden = torch.cat(self.waiting).to(self.low.dtype)
            self._sum(self.low[: len(hidden)], hidden)
            self.waiting = []
        return self.d_weight

    def _sum(self, d_logits: Tensor, hidden: Tensor) -> None:
        first = self.d_weight is None
        if first:
            self.d_weight = torch.empty(len(self.weight), hidden.shape[1], dtype=self.whole.dtype, device=hidden.device)
        if d_logits.dtype == self.d_weight.dtype:
            torch.addmm(self.d_weight, d_logits.t(), hidden, beta=0.0 if first else 1.0, out=self.d_weight)
            return
        self.product = torch.mm(d_logits.t(), hidden) if first else torch.mm(d_logits.t(), hidden, out=self.product)
        for total, product in zip(self.d_weight.split(ROWS), self.product.split(ROWS), strict=True):
            total.copy_(product) if first else total.add_(product.to(total.dtype))  # of one type: five times as fast


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, target: Tensor, rows: int, *precisions: torch.dtype | None):
        nll, d_hidden = hidden.new_empty(len(hidden)), torch.empty_like(hidden)
        layer, minus_one = _OutputLayer(weight, rows, *precisions), hidden.new_full((1, 1), -1.0)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits, index = layer.logits(hidden[part]), target[part].unsqueeze(1)
            nll[part] = _softmax_(logits, index)
            d_logits = logits.scatter_add_(1, index, minus_one.expand(len(index), 1))
            layer.back(d_logits, hidden[part], d_hidden[part], ctx.needs_input_grad[1])
        ctx.save_for_backward(hidden, weight, target, d_hidden)
        ctx.rows, ctx.precision, ctx.d_weight = rows, precisions[0], layer.close()
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx, d_nll: Tensor):
        hidden, weight, target, d_hidden = ctx.saved_tensors
        # W's gradient was formed for a weight of one per token, and a mean over sentences only scales it: in its place,
        # for it is as large as W. A second backward pass makes its own.
        d_weight, ctx.d_weight = ctx.d_weight, None
        if d_weight is not None and bool((d_nll == d_nll[0]).all()):
            d_weight.mul_(d_nll[0])
        elif ctx.needs_input_grad[1]:
            d_weight = _weighted_d_weight(ctx, hidden, weight, target, d_nll)
        return d_hidden * d_nll.unsqueeze(1), d_weight, None, None, None, None


def _softmax_(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax at the targets [N, 1], [N]; `logits` [N, V] become the probabilities, in place.

    The largest probability is one over the sum of exp(logit - largest logit): no second pass over the words for it.
    """
    at_target, largest = logits.gather(1, target).squeeze(1), logits.amax(1)
    return largest - torch.softmax(logits, 1, out=logits).amax(1).log() - at_target


def _weighted_d_weight(ctx, hidden, weight, target, d_nll) -> Tensor:
    d_weight, layer = torch.zeros_like(weight), _OutputLayer(weight, ctx.rows, ctx.precision)
    for start in range(0, len(hidden), ctx.rows):
        part = slice(start, start + ctx.rows)
        d_logits = F.softmax(layer.logits(hidden[part]), dim=1)
        d_logits[torch.arange(len(d_logits), device=d_logits.device), target[part]] -= 1
        d_weight.addmm_((d_logits * d_nll[part].unsqueeze(1)).t(), hidden[part])
    return d_weight


def _whole(hidden: Tensor, weight: Tensor, target: Tensor, precision: torch.dtype | None) -> Tensor:
    """With all logits at once: for a GPU, which has the memory, and which the chunks and the comparison on the host
    that `_LinearCrossEntropy` makes would keep waiting."""
    dtype = precision or hidden.dtype
    logits = F.linear(hidden.to(dtype), weight.to(dtype)).to(hidden.dtype)
    return F.cross_entropy(logits, target, reduction="none")


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    rows: int | None = None,
    precision: torch.dtype | None = None,
) -> Tensor:
    """-log softmax(W h)[target] for every token, [N] in nats; a processor never holds the logits of all of them.

    hidden: [N, H]. weight: [V, H]. target: [N] word ids. precision: the dtype of the two products with the vocabulary
    (torch.bfloat16 for speed; sums and the softmax stay in `hidden`'s dtype), None for `hidden`'s own.
    rows: tokens whose logits exist at once, by default as many as suit the device; with gradients all of them on a GPU,
    and where that is no more than `FEW` numbers.
    A gradient of W that is wanted `for_its_norm` is formed in bfloat16 where the processor multiplies in it.
    """
    few = rows is None and len(hidden) * len(weight) <= FEW
    if torch.is_grad_enabled() and (few or hidden.device.type != "cpu"):
        return _whole(hidden, weight, target, precision)
    rows = rows or (ROWS if hidden.device.type == "cpu" else ROWS_ACCELERATOR)
    rows = math.ceil(len(hidden) / math.ceil(len(hidden) / rows))  # no short chunk at the end: it costs nearly as much
    if torch.is_grad_enabled():
        rough = weight.numel() >= LARGE and getattr(weight, "for_norm", False) and bfloat16_here()
        rough = torch.bfloat16 if rough else None
        return _LinearCrossEntropy.apply(hidden, weight, target, rows, precision, rough)
    layer = _OutputLayer(weight, rows, precision)
    parts = zip(hidden.split(rows), target.unsqueeze(1).split(rows), strict=True)
    return torch.cat([_softmax_(layer.logits(h), t) for h, t in parts])
