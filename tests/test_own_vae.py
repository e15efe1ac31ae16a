"""A stranger's model and Algorithm 1: the page's examples as they stand, and what the first step refuses."""

import importlib.util
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import lagvae_lib
from lagvae_lib import Aggressive, Batch, Loss, Optimisers, minibatches, mutual_information
from lagvae_lib.errors import Diverged, UserError
from lagvae_lib.inference.checks import BadModel, counted
from lagvae_lib.inference.gradients import means

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


def test_minibatches_leave_the_loop_over_a_loader_with_lasting_workers_alone():
    loader = torch.utils.data.DataLoader(X, 16, num_workers=1, persistent_workers=True)
    draw = minibatches(loader)
    for _ in range(2):
        seen = [batch for batch in loader if draw() is not None]
        assert torch.equal(torch.cat(seen), X)


def test_a_loss_may_be_of_ones_own_kind():
    plain = SimpleNamespace(loss=X[:, 0] + 2, reconstruction=X[:, 0], kl=X[:, 1])
    mean = means(plain)
    assert isinstance(mean, Loss) and float(mean.kl) == pytest.approx(float(X[:, 1].mean()))


@pytest.mark.parametrize("window", [10.0, True, math.nan, math.inf, "10"])
def test_whole_numbers_are_whole_numbers(window):
    with pytest.raises(UserError, match="window must be a whole number"):
        Aggressive(window=window)


def test_numbers_of_numpy_are_numbers():
    assert Aggressive(window=np.int64(10)).window == 10
    assert counted(lambda x: np.int64(8), X, 64) == 8


def test_minibatches_go_on_after_an_interrupt():
    class Interrupted(list):
        def __iter__(self):
            yield from super().__iter__()
            raise KeyboardInterrupt

    loader = torch.utils.data.DataLoader([1.0, 2.0], batch_sampler=Interrupted([[0], [1]]))
    draw = minibatches(loader)
    for _ in range(2):
        assert [draw().item(), draw().item()] == [1.0, 2.0]
        with pytest.raises(KeyboardInterrupt):
            draw()


def test_mutual_information_leaves_every_layer_in_its_mode():
    model = Own()
    model.first.eval()
    mutual_information(model, X.split(16))
    assert model.training and model.head.training and not model.first.training


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


# -- loops that are nearly right --------------------------------------------------------------------------------------


def refused(says, model=None, **given):
    with pytest.raises(BadModel, match=says):
        step(model or Own(), **given)


@pytest.mark.parametrize("clip", ["joint", "separate"])
def test_a_code_that_is_cut_off_from_the_encoder_is_refused(clip):
    class Detached(Own):
        def encode(self, x):
            return [part.detach() for part in super().encode(x)]

    refused("no gradient in encoder_parameters|without a gradient", Detached(), clip=clip)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_an_optimiser_that_lacks_a_part_of_its_half_is_refused(half):
    model = Own()
    parts = {name: list(getattr(model, f"{name}_parameters")()) for name in ("encoder", "decoder")}
    parts[half] = parts[half][:1]
    refused(f"the {half}'s optimiser lacks parameters", model, optimisers=Optimisers(*map(sgd, parts.values())))
    parts = {name: list(getattr(model, f"{name}_parameters")()) for name in ("encoder", "decoder")}
    grouped = [torch.optim.SGD([{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], 0.01) for p in parts.values()]
    assert step(model, optimisers=Optimisers(*grouped)).inner_steps > 1


def test_optimisers_that_algorithm_1_cannot_use_are_refused():
    model = Own()
    halves = [list(model.encoder_parameters()), list(model.decoder_parameters())]
    refused("LBFGS evaluates the loss several times", model, optimisers=Optimisers(*map(torch.optim.LBFGS, halves)))
    refused("is no optimiser", model, optimisers=Optimisers(torch.optim.SGD, torch.optim.Adam))
    refused("is no optimiser", optimisers=Optimisers(*(torch.optim.lr_scheduler.StepLR(o, 1) for o in pair(model))))
    made = pair(model)
    model.first = nn.Linear(6, 8)
    refused("parameters that this model does not have", model, optimisers=made)
    for algorithm in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        fresh = Own()
        assert step(fresh, optimisers=Optimisers(*(algorithm(list(p)) for p in both(fresh)))).inner_steps > 1


def both(model):
    return model.encoder_parameters(), model.decoder_parameters()


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda a, b, c: Loss(a.mean(), b, c), r"a loss of shape \(\)"),
        (lambda a, b, c: Loss(a[:, None], b, c), r"a loss of shape \(8, 1\)"),
        (lambda a, b, c: Loss(a, b[:4], c), r"of shape \(8,\)"),
        (lambda a, b, c: Loss(a, b, None), "a kl that is a NoneType"),
        (lambda a, b, c: Loss(a.mean().item(), b, c), "a loss that is a float"),
        (lambda a, b, c: Loss(a.round().int(), b, c), "torch.int32"),
        (lambda a, b, c: Loss(a.detach(), b, c), "a loss without a gradient"),
    ],
)
def test_terms_of_a_loss_that_are_not_one_number_for_each_example_are_refused(form, says):
    refused(says, Own(form=form))


def test_halves_that_are_no_parameters_or_cannot_move_are_refused():
    for given, says in (
        (lambda model: model.first.named_parameters(), "gives a tuple"),
        (lambda model: model.first, "gives a Linear"),
    ):
        model = Own()
        optimisers = pair(model)
        model.encoder_parameters = lambda model=model, given=given: given(model)
        refused(says, model, optimisers=optimisers)
    model = Own()
    for parameter in model.encoder_parameters():
        parameter.requires_grad = False
    refused("the inner loop could move nothing", model)
    with torch.no_grad():
        refused("a loss without a gradient")


@pytest.mark.parametrize("draw", [[X], X, None, iter([X]), torch.utils.data.DataLoader(X, 8)])
def test_a_draw_that_is_no_function_is_refused(draw):
    refused(r"which cannot be called; give lagvae_lib\.minibatches", draw=draw)


@pytest.mark.parametrize("units", [8, lambda x: 0, lambda x: -8, lambda x: None, lambda x: math.nan, lambda x: X])
def test_units_that_are_no_size_are_refused(units):
    model, algorithm = Own(), Aggressive()
    with pytest.raises(BadModel, match="units"):
        algorithm.step(model, Batch(X[:8], lambda: X[8:16], units=units), pair(model), algorithm.begin())
    counted = Batch(X[:8], lambda: X[8:16], units=lambda x: torch.tensor(len(x)))
    assert algorithm.step(model, counted, pair(model), algorithm.begin()).inner_steps > 1


@pytest.mark.parametrize("state", [None, {}, Aggressive()])
def test_a_state_that_begin_did_not_give_is_refused(state):
    model = Own()
    with pytest.raises(BadModel, match=r"give what begin\(\) returned"):
        Aggressive().step(model, Batch(X[:8], lambda: X[8:16]), pair(model), state)


def test_a_plain_step_checks_its_loss_before_anything_moves():
    model, x = Own(), X[:8] * math.nan
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(Diverged, match="after the aggressive stage"):
        Aggressive().step(model, Batch(x, lambda: X), pair(model), Aggressive().begin() | {"aggressive": False})
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(Diverged):
        Aggressive().epoch_end(Aggressive().begin() | {"aggressive": False}, math.nan)


@pytest.mark.parametrize(
    "given",
    [X, X.numpy(), torch.utils.data.TensorDataset(X), {"x": X}, "abc", None, lambda: X],
    ids=lambda x: type(x).__name__,
)
def test_what_holds_no_batches_is_refused(given):
    for use in (minibatches, lambda batches: mutual_information(Own(), batches)):
        with pytest.raises(BadModel, match="give batches: a DataLoader, or a list"):
            use(given)


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (lambda x: torch.distributions.Normal(x, 1.0), "returned a Normal"),
        (lambda x: x, "returned a Tensor"),
        (lambda x: (x, x, x), "returned a tuple"),
        (lambda x: {"mu": x, "logvar": x}, "returned a dict"),
        (lambda x: (x[:, 0], x[:, 0]), r"of shape \(16,\) and \(16,\)"),
        (lambda x: (x, x[:, :2]), r"of shape \(16, 6\) and \(16, 2\)"),
    ],
)
def test_an_encode_of_another_form_is_refused(encode, says):
    model = Own()
    model.encode = encode
    with pytest.raises(BadModel, match=says):
        mutual_information(model, X.split(16))
    with pytest.raises(BadModel, match="batches of one example"):
        mutual_information(Own(), X.split(1))


def test_an_mi_that_is_no_number_and_knobs_of_another_type_are_refused():
    algorithm = Aggressive()
    assert algorithm.epoch_end(algorithm.begin(), torch.tensor(0.5))["reference_mi"] == 0.5
    with pytest.raises(BadModel, match="mi is None"):
        algorithm.epoch_end(algorithm.begin(), None)
    for knobs, says in (
        ({"window": "15"}, "window must be a whole number, not '15'"),
        ({"window": 2.5}, "window must be a whole number, not 2.5"),
        ({"max_norm": "5"}, "max_norm must be a number"),
        ({"inner_test": "gain", "window": 1}, "at least 2 steps"),
    ):
        with pytest.raises(UserError, match=says):
            Aggressive(**knobs)
