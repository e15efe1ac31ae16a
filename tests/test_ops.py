"""The written-out backward passes against autograd through the textbook formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lagvae_lib.models import ops
from lagvae_lib.models.holding import for_norm_alone
from lagvae_lib.models.ops import _whole, linear_cross_entropy, lstm, lstm_step

shapes = settings(max_examples=15, deadline=None)


def gradients(output, inputs):
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


@shapes
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
def test_lstm_equals_torch_lstm(steps, batch, size, seed):
    torch.manual_seed(seed)
    reference = torch.nn.LSTM(3, size, dtype=torch.float64)
    x = torch.randn(steps, batch, 3, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, batch, size, dtype=torch.float64, requires_grad=True).unbind()
    expected, _ = reference(x, (h0[None], c0[None]))
    bias = reference.bias_ih_l0 + reference.bias_hh_l0
    got = lstm(F.linear(x, reference.weight_ih_l0, bias), reference.weight_hh_l0, h0, c0)
    torch.testing.assert_close(got, expected)
    inputs = [x, h0, c0, *reference.parameters()]
    for a, b in zip(gradients(got, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_lstm_step_repeats_lstm():
    torch.manual_seed(0)
    inputs, w_hh = torch.randn(5, 3, 16), torch.randn(16, 4)
    h, c = torch.randn(2, 3, 4).unbind()
    whole = lstm(inputs, w_hh, h, c)
    for x, expected in zip(inputs, whole, strict=True):
        h, c = lstm_step(x, w_hh, h, c)
        torch.testing.assert_close(h, expected)


def test_cross_entropy_on_a_gpu_is_the_same():
    """There all logits are made at once; the path is called by its own name, for want of a GPU."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    target = torch.randint(9, (7,))
    expected, got = linear_cross_entropy(hidden, weight, target, rows=3), _whole(hidden, weight, target, None)
    torch.testing.assert_close(got, expected)
    for a, b in zip(gradients(got, [hidden, weight]), gradients(expected, [hidden, weight]), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(_whole(hidden, weight, target, torch.bfloat16), expected, rtol=0.05, atol=0.05)


@shapes
@given(st.integers(1, 20), st.integers(1, 5), st.integers(2, 9), st.integers(1, 8), st.booleans())
def test_cross_entropy_equals_torch(tokens, size, words, rows, uniform):
    torch.manual_seed(tokens)
    hidden = torch.randn(tokens, size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(words, size, dtype=torch.float64, requires_grad=True)
    target = torch.randint(words, (tokens,))
    got = linear_cross_entropy(hidden, weight, target, rows=rows)
    expected = F.cross_entropy(hidden @ weight.t(), target, reduction="none")
    torch.testing.assert_close(got, expected)
    if uniform:  # a mean over tokens and arbitrary weights take different paths
        got, expected = got.mean(), expected.mean()
    inputs = [hidden, weight]
    for a, b in zip(gradients(got, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_cross_entropy_without_gradients_and_with_a_frozen_vocabulary():
    hidden, weight, target = torch.randn(7, 4, requires_grad=True), torch.randn(5, 4), torch.randint(5, (7,))
    expected = F.cross_entropy(hidden @ weight.t(), target, reduction="none")
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, target, rows=3), expected)
    got = linear_cross_entropy(hidden, weight, target, rows=3)
    torch.testing.assert_close(gradients(got, [hidden])[0], gradients(expected, [hidden])[0])


@pytest.mark.parametrize("size", [1.0, 10.0])
def test_bfloat16_products_change_the_gradient_by_under_a_percent(size):
    torch.manual_seed(0)
    hidden = (torch.randn(64, 128) * size / 128**0.5).requires_grad_()
    weight, target = torch.randn(2000, 128) * 0.1, torch.randint(2000, (64,))
    exact, low = (
        gradients(linear_cross_entropy(hidden, weight, target, precision=p).mean(), [hidden])[0]
        for p in (None, torch.bfloat16)
    )
    error = (exact - low).norm() / exact.norm()
    assert 0 < error < 0.01


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("tokens", [2, 12, 13, 40])
def test_the_weights_gradient_by_bfloat16_products_of_several_chunks(tokens, rough, monkeypatch):
    """Fewer chunks than wait for each other, as many, one more, and several times as many; whether all products are in
    bfloat16 or, for a weight that is wanted for its norm, that one."""
    hidden, weight, target = torch.randn(tokens, 8), torch.randn(30, 8), torch.randint(30, (tokens,))
    hidden, weight = hidden.requires_grad_(), torch.nn.Parameter(weight)
    expected = gradients(linear_cross_entropy(hidden, weight, target, rows=3).mean(), [hidden, weight])
    monkeypatch.setattr(ops, "bfloat16_here", lambda: True)
    monkeypatch.setattr(ops, "LARGE", 0)
    precision = None if rough else torch.bfloat16
    with for_norm_alone([weight] if rough else []):
        found = gradients(
            linear_cross_entropy(hidden, weight, target, rows=3, precision=precision).mean(), [hidden, weight]
        )
    assert torch.equal(found[0], expected[0]) == rough
    for got, exact in zip(found, expected, strict=True):
        assert (got - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(found[1], expected[1])


def test_a_second_backward_pass_makes_the_weights_gradient_again():
    hidden, weight, target = torch.randn(7, 4), torch.randn(9, 4, requires_grad=True), torch.randint(9, (7,))
    loss = linear_cross_entropy(hidden, weight, target, rows=3).mean()
    first, second = (torch.autograd.grad(loss, weight, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)


def test_cross_entropy_refuses_a_second_derivative_instead_of_a_wrong_one():
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    nll = linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2, 3]), rows=2)
    (slope,) = torch.autograd.grad(nll.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match=r"twice|used in the graph"):
        torch.autograd.grad(slope.sum(), hidden)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_dropout_is_torchs_but_for_its_random_numbers(p):
    torch.manual_seed(0)
    dropout, x = ops.Dropout(p), torch.ones(201, 301, requires_grad=True)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx({0.0: [1.0], 1.0: [0.0]}.get(p, [0.0, 1 / (1 - min(p, 0.9))]))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], y.detach())  # of ones: the mask and its scale
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_four_masks_of_one_random_number_are_independent(p):
    torch.manual_seed(0)
    kept = (ops.Dropout(p)(torch.ones(200_001)) > 0).float()[:-1].view(-1, 4)
    assert kept.mean(0).tolist() == pytest.approx([1 - p] * 4, abs=4 * (p * (1 - p) / len(kept)) ** 0.5)
    assert (torch.corrcoef(kept.t()) - torch.eye(4)).abs().max() < 4 / len(kept) ** 0.5


def test_a_weight_that_is_listed_twice_is_let_go_once():
    weight = torch.nn.Parameter(torch.ones(2))
    with for_norm_alone([weight, weight]):
        assert weight.for_norm
    assert not hasattr(weight, "for_norm")
