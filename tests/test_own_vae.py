"""A stranger's model and Algorithm 1: the page's examples as they stand, and what the first step refuses."""

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import lagvae_lib
from lagvae_lib import Aggressive, Batch, Loss, Optimisers, minibatches, mutual_information
from lagvae_lib.errors import Diverged, UserError
from lagvae_lib.inference.checks import BadModel

ROOT = Path(__file__).resolve().parent.parent
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(path, after=""):
    """The first block of Python behind a heading."""
    text = (ROOT / path).read_text(encoding="utf-8").partition(after)[2] if after else (ROOT / path).read_text("utf-8")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


class Own(nn.Module):
    """A VAE on vectors; `decode` may be tied to the encoder's first weight."""

    def __init__(self, tied=False, form=Loss):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.hidden, self.out = nn.Linear(2, 8), nn.Linear(8, 6)
        self.form = form
        if tied:
            self.out = nn.Linear(8, 6, bias=False)
            self.out.weight = nn.Parameter(self.first.weight.detach().t())
            self.first.weight = nn.Parameter(self.first.weight.detach())
            self.tied = self.first.weight

    def encode(self, x):
        return self.head(torch.tanh(self.first(x))).chunk(2, 1)

    def loss(self, x, kl_weight):
        x = x["x"] if isinstance(x, dict) else x[0] if isinstance(x, (tuple, list)) else x
        mu, logvar = self.encode(x)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        reconstruction = 0.5 * (self.out(torch.tanh(self.hidden(z))) - x).square().sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return self.form(reconstruction + kl_weight * kl, reconstruction, kl)

    def encoder_parameters(self):
        return [*self.first.parameters(), *self.head.parameters()]

    def decoder_parameters(self):
        shared = [self.tied] if hasattr(self, "tied") else []
        return [*self.hidden.parameters(), *self.out.parameters(), *shared]


def sgd(parameters):
    return torch.optim.SGD(list(parameters), 0.05)


def pair(model):
    return Optimisers(sgd(model.encoder_parameters()), sgd(model.decoder_parameters()))


def step(model, x=X[:8], draw=lambda: X[8:16], optimisers=None, **knobs):
    algorithm = Aggressive(**knobs)
    return algorithm.step(model, Batch(x, draw), optimisers or pair(model), algorithm.begin())


# -- the documentation ------------------------------------------------------------------------------------------------


def test_readme_s_example_runs_as_it_stands_and_learns(capsys):
    names = {"__name__": "example"}
    exec(code("README.md", "## Aggressive training in your own loop"), names)
    assert names["mi"] > 0.5
    assert capsys.readouterr().out.count("epoch") == 5


def test_the_page_s_ten_lines_run_as_they_stand():
    names = {"model": Own(), "loader": X.split(16), "validation": X.split(16), "epochs": 1}
    exec(code("docs/own_vae.md"), names)
    assert math.isfinite(names["state"]["reference_mi"])


def test_the_gru_example_runs_and_counts_words():
    module = example("own_vae_gru")
    assert math.isfinite(module.main(1))
    words, lengths = module.sentences(1)[0]
    assert module.predicted_words((words, lengths)) == int(lengths.sum()) - len(words)


def test_the_digits_example_runs():
    pytest.importorskip("sklearn")
    assert math.isfinite(example("own_vae_digits").main(1))


def test_what_the_package_offers():
    assert set(lagvae_lib.__all__) >= {"mutual_information", "minibatches", "Loss", "Aggressive", "Batch", "Optimisers"}
    with pytest.raises(AttributeError, match="nothing"):
        lagvae_lib.nothing  # noqa: B018


# -- what the first step refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", ["joint", "separate"])
def test_a_tied_weight_is_refused_and_nothing_moves(clip):
    model = Own(tied=True)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(BadModel, match=r"first\.weight.* is in encoder_parameters\(\) and in decoder_parameters\(\)"):
        step(model, clip=clip)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_parameter_in_neither_half_is_refused_unless_it_is_frozen():
    model = Own()
    model.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(BadModel, match=r"parameter extra\.weight is neither in"):
        step(model)
    model.extra.weight.requires_grad = False
    assert step(model).inner_steps > 1


def test_an_empty_half_and_a_missing_method_are_refused():
    model = Own()
    model.encoder_parameters = lambda: iter(())
    with pytest.raises(BadModel, match=r"encoder_parameters\(\) gives no parameter"):
        step(model, optimisers=pair(Own()))
    with pytest.raises(BadModel, match=r"Linear has no loss\(\)"):
        step(nn.Linear(2, 2), optimisers=pair(Own()))


def test_optimisers_that_do_not_serve_one_half_each_are_refused():
    model = Own()
    both = sgd(model.parameters())
    for wrong, says in (
        (Optimisers(both, both), "one optimiser is given for both halves"),
        (both, r"a pair Optimisers\(encoder_optimiser, decoder_optimiser\) is needed, not SGD"),
        (tuple(pair(model)), "is needed, not tuple"),
        (Optimisers(both, sgd(model.decoder_parameters())), "encoder's optimiser holds parameters hidden.weight"),
        (Optimisers(sgd(model.encoder_parameters()), sgd(model.parameters())), "decoder's optimiser holds"),
        (pair(Own()), "holds"),
    ):
        with pytest.raises(BadModel, match=says):
            step(model, optimisers=wrong)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda *terms: terms, "returned a tuple; return lagvae_lib.Loss"),
        (lambda *terms: terms[0].mean(), "returned a Tensor"),
        (lambda *terms: Loss(*(term.mean() for term in terms)), r"reconstruction of shape \(\)"),
    ],
)
def test_a_loss_of_another_form_is_refused(form, says):
    with pytest.raises(BadModel, match=says):
        step(Own(form=form))


def test_a_loss_that_is_no_number_ends_the_step_before_anything_moves():
    model, x = Own(), X[:8].clone()
    x[0, 0] = math.nan
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(Diverged, match="the loss is nan on the outer batch"):
        step(model, x)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(Diverged, match="mutual information is nan"):
        Aggressive().epoch_end(Aggressive().begin(), math.nan)


def test_a_draw_that_runs_dry_says_what_to_give():
    batches = iter([X[8:16]] * 5)
    with pytest.raises(BadModel, match=r"run dry.*lagvae_lib\.minibatches"):
        step(Own(), draw=lambda: next(batches))
    assert issubclass(BadModel, UserError)


# -- batches of any kind ----------------------------------------------------------------------------------------------


def test_units_are_the_examples_whatever_a_batch_is():
    """The same batches as a tensor, a pair, a list and a dict take the same steps."""
    sizes = [X[:2], X[2:10], X[10:42], X[42:64]]
    found = []
    for form in (lambda x: x, lambda x: (x, len(x)), lambda x: [x, 1, 2], lambda x: {"x": x}):
        draws = iter([form(sizes[i % 4]) for i in range(200)])
        torch.manual_seed(0)
        model = Own()
        found.append((step(model, form(X[:8]), lambda draws=draws: next(draws)).inner_steps, model.out.bias[0].item()))
    assert len(set(found)) == 1


def test_minibatches_begin_again_and_refuse_what_cannot():
    loader = torch.utils.data.DataLoader(X, 16, shuffle=True)
    draw = minibatches(loader)
    assert {len(draw()) for _ in range(20)} == {16}
    assert minibatches([X, X])() is X
    for nothing in ([], iter([]), torch.utils.data.DataLoader(X[:0], 2)):
        with pytest.raises(BadModel, match=r"empty|at its end"):
            minibatches(nothing)()
    once = minibatches(iter([X]))
    once()
    with pytest.raises(BadModel, match="gone through again"):
        once()


def test_mutual_information_leaves_mode_and_random_numbers_as_they_were():
    model = Own().train()
    torch.manual_seed(3)
    first = mutual_information(model, X.split(16))
    assert first == mutual_information(model, X.split(16))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1)) and model.training
    with pytest.raises(BadModel, match=r"Linear has no encode\(x\)"):
        mutual_information(nn.Linear(1, 1), [X])
    with pytest.raises(BadModel, match="no batches"):
        mutual_information(model, [])


def test_no_method_of_the_library_is_refused():
    """Every model of the registry that Algorithm 1 can fit has two halves and nothing over."""
    from lagvae_lib.config.build import build_model
    from lagvae_lib.inference.checks import halves
    from tests.tiny import tiny_config, tiny_data

    for method in ("vae", "bn-vae", "delta-vae", "skip-vae", "cnn-vae", "free-bits"):
        assert all(halves(build_model(tiny_config(method), tiny_data())))
