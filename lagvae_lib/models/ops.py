"""The two operations that text models spend their time in, with backward passes written out.

`lstm` is the LSTM recurrence alone: the inputs' projections are made for all steps at once by the caller, so that
what does not change along the sentence (z) or between samples (the words) is projected once. `linear_cross_entropy`
is the output layer together with the loss: it never holds the logits of more than `rows` tokens.
Both compute no gradient that nobody asked for, which is what makes the encoder's inner loop cheap.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

ROWS = 512  # tokens whose logits exist at once: at 20,000 words 40 MB, small enough to stay near the processor


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
    """The four gates (input, forget, candidate, output), each as one view a step."""
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
    d_gates = torch.empty_like(gates)
    (i, f, g, o), (d_i, d_f, d_g, d_o) = _gate_views(gates), _gate_views(d_gates)
    all_gates, c, d_y = d_gates.unbind(), cells.unbind(), d_out.unbind()
    d_h, d_c = torch.zeros_like(c[0]), torch.zeros_like(c[0])
    tanh_c, d_tanh = torch.empty_like(d_h), torch.empty_like(d_h)
    # One step at a time, in buffers that stay in cache: all steps at once is slower but for the tiniest sizes.
    for t in reversed(range(len(gates))):
        d_h += d_y[t]
        torch.tanh(c[t + 1], out=tanh_c)
        torch.mul(d_h, tanh_c, out=d_o[t])
        torch.mul(d_h, o[t], out=d_tanh)
        d_c += _tanh_backward(d_tanh, tanh_c, grad_input=d_tanh)
        torch.mul(d_c, c[t], out=d_f[t])
        torch.mul(d_c, g[t], out=d_i[t])
        torch.mul(d_c, i[t], out=d_g[t])
        for d_gate, gate in ((d_i[t], i[t]), (d_f[t], f[t]), (d_o[t], o[t])):
            _sigmoid_backward(d_gate, gate, grad_input=d_gate)
        _tanh_backward(d_g[t], g[t], grad_input=d_g[t])
        torch.mm(all_gates[t], w_hh, out=d_h)
        d_c *= f[t]
    return d_gates, d_h, d_c


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
    i, f, g, o = torch.addmm(inputs, h, w_hh.t()).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _logits(hidden: Tensor, weight: Tensor, low: Tensor | None) -> Tensor:
    return hidden @ weight.t() if low is None else (hidden.to(low.dtype) @ low.t()).to(hidden.dtype)


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, target: Tensor, rows: int, precision: torch.dtype | None):
        low = weight.to(precision) if precision is not None else None
        nll, d_hidden = hidden.new_empty(len(hidden)), torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            probs = _logits(hidden[part], weight, low)
            nll[part] = _softmax_nll_(probs, target[part])
            _accumulate(probs, hidden[part], target[part], weight, low, d_hidden[part], d_weight)
        ctx.save_for_backward(hidden, weight, target, d_hidden, d_weight)
        ctx.rows, ctx.precision = rows, precision
        return nll

    @staticmethod
    def backward(ctx, d_nll: Tensor):
        hidden, weight, target, d_hidden, d_weight = ctx.saved_tensors
        if d_weight is not None:
            # Gradients were formed for a weight of one per token; a mean over sentences only scales them all alike.
            if bool((d_nll == d_nll[0]).all()):
                d_weight = d_weight * d_nll[0]
            else:
                d_weight = _weighted_d_weight(ctx, hidden, weight, target, d_nll)
        return d_hidden * d_nll.unsqueeze(1), d_weight, None, None, None


def _nll(logits: Tensor, target: Tensor) -> Tensor:
    return logits.logsumexp(1) - logits.gather(1, target.unsqueeze(1)).squeeze(1)


def _softmax_nll_(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax at the targets [N]; `logits` [N, V] turns into the probabilities, in place."""
    at_target = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    largest = logits.amax(1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(1, keepdim=True)
    logits.div_(total)
    return total.log().add_(largest).squeeze(1) - at_target


def _accumulate(probs, hidden, target, weight, low, d_hidden, d_weight) -> None:
    probs[torch.arange(len(target), device=target.device), target] -= 1  # d nll / d logits
    if low is None:
        torch.mm(probs, weight, out=d_hidden)
        if d_weight is not None:
            d_weight.addmm_(probs.t(), hidden)
    else:
        probs = probs.to(low.dtype)
        d_hidden.copy_(probs @ low)
        if d_weight is not None:
            d_weight += probs.t() @ hidden.to(low.dtype)


def _weighted_d_weight(ctx, hidden, weight, target, d_nll) -> Tensor:
    low = weight.to(ctx.precision) if ctx.precision is not None else None
    d_weight = torch.zeros_like(weight)
    for start in range(0, len(hidden), ctx.rows):
        part = slice(start, start + ctx.rows)
        d_logits = F.softmax(_logits(hidden[part], weight, low), dim=1)
        d_logits[torch.arange(len(d_logits), device=d_logits.device), target[part]] -= 1
        d_weight.addmm_((d_logits * d_nll[part].unsqueeze(1)).t(), hidden[part])
    return d_weight


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, rows: int = ROWS, precision: torch.dtype | None = None
) -> Tensor:
    """-log softmax(W h)[target] for every token, [N] in nats, without ever holding all logits.

    hidden: [N, H]. weight: [V, H]. target: [N] word ids. precision: the dtype of the two products with the vocabulary
    (torch.bfloat16 for speed; sums and the softmax stay in `hidden`'s dtype), None for `hidden`'s own.
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(hidden, weight, target, rows, precision)
    low = weight.to(precision) if precision is not None else None
    parts = [slice(start, start + rows) for start in range(0, len(hidden), rows)]
    return torch.cat([_nll(_logits(hidden[part], weight, low), target[part]) for part in parts])
