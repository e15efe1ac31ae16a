"""SA-VAE: its gradient against the exact unrolled one, its two orders of clipping, and what it leaves untouched."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.loading import load
from lagvae_lib.inference import Batch, Optimisers
from lagvae_lib.inference import semi_amortised as module
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.inference.semi_amortised import SemiAmortised, draw_seeds, seeded
from lagvae_lib.metrics.evaluate import evaluate as metrics_of
from lagvae_lib.metrics.evaluate import spread_examples, validate
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.images import PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.priors import SampledKL
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE
from lagvae_lib.names import UnknownName
from lagvae_lib.objectives import Objective
from lagvae_lib.runs.observe import observer
from lagvae_lib.runs.train import trainer_of
from lagvae_lib.schedule import Schedule
from lagvae_lib.training import Trainer
from tests.tiny import tiny_data

INF = float("inf")
FREE = {"max_norm": INF, "svi_max_norm": INF}  # nothing is clipped


class BitsEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 4))

    def forward(self, x):
        return DiagonalGaussian(*self.net(x).chunk(2, dim=1))


class BitsDecoder(nn.Module):
    """Bernoulli bits with dropout; built of operations that can be differentiated twice, unlike those of `ops`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 8))

    def log_prob(self, x, z):
        logits = self.net(z)  # [B, k, 8]
        return -F.binary_cross_entropy_with_logits(logits, x[:, None].expand_as(logits), reduction="none").sum(-1)


def bits():
    """A double-precision VAE whose decoder minds z, four examples of two kinds, and their batch."""
    torch.manual_seed(0)
    model = VAE(BitsEncoder(), BitsDecoder()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.5
    x = (torch.rand(4, 8) < torch.tensor([[0.9], [0.1], [0.9], [0.1]])).double()
    return model, Batch(x, lambda: x, 0.7)


def text():
    torch.manual_seed(0)
    data = tiny_data()
    words = len(data.vocab)
    model = VAE(LSTMEncoder(words, 2, 6, 8), LSTMDecoder(words, 2, 6, 8))
    return model, Batch(data.train.get(0, torch.Generator()), None, 0.7)


def images():
    torch.manual_seed(0)
    decoder = PixelCNNDecoder(2, channels=4, kernels=(3, 3, 3, 3), latent_maps=2, size=6)
    model = VAE(ResNetEncoder(2, (4, 4), last=6, size=6), decoder)
    return model, Batch((torch.rand(6, 1, 6, 6) < 0.4).float(), None, 0.7)


def sgd(model, lr=0.1):
    return Optimisers(*(torch.optim.SGD(p, lr) for p in (model.encoder_parameters(), model.decoder_parameters())))


def flat(parameters):
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


def gradients(model, compute, seed=1):
    """(encoder's, decoder's) gradient that `compute` leaves in the parameters, as vectors."""
    for parameter in model.parameters():
        parameter.grad = None
    torch.manual_seed(seed)
    compute()
    return flat(model.encoder_parameters()), flat(model.decoder_parameters())


def gradients_of(algorithm, model, batch):
    return gradients(model, lambda: algorithm.step(model, batch, sgd(model, lr=0.0), algorithm.begin()))


def exact_unroll(algorithm, model, batch):
    """The refinement as one graph, differentiated by autograd."""
    q = model.encode(batch.x)
    at, momentum = torch.stack([q.mu, q.logvar]), 0
    for seed in draw_seeds(algorithm.steps):
        with seeded(seed, at.device):
            loss = model.loss_at(batch.x, DiagonalGaussian(*at), batch.kl_weight).loss.mean()
        [gradient] = torch.autograd.grad(loss, at, create_graph=True)
        momentum = algorithm.momentum * momentum - gradient
        at = at + algorithm.step_size * momentum
    model.loss_at(batch.x, DiagonalGaussian(*at), batch.kl_weight).loss.mean().backward()


def error(got, wanted):
    return float((got - wanted).norm() / wanted.norm())


def cosine(a, b):
    return float(F.cosine_similarity(a, b, dim=0))


# -- the gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [bits, text, images])
def test_without_steps_it_is_the_amortised_step_bit_for_bit(build):
    outcomes = []
    for algorithm in (Amortised(), SemiAmortised(steps=0)):
        model, batch = build()
        torch.manual_seed(1)
        step = algorithm.step(model, batch, sgd(model), algorithm.begin())
        outcomes.append([*model.state_dict().values(), *step.loss, torch.get_rng_state(), torch.tensor(step.clipped)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("clip_order", module.CLIP_ORDERS)
def test_unclipped_gradient_is_that_of_the_exact_unroll(steps, momentum, clip_order):
    model, batch = bits()
    algorithm = SemiAmortised(steps=steps, momentum=momentum, clip_order=clip_order, **FREE)
    wanted = gradients(model, lambda: exact_unroll(algorithm, model, batch))
    for got, exact in zip(gradients_of(algorithm, model, batch), wanted, strict=True):
        assert error(got, exact) < 1e-5


def test_the_terms_that_the_unroll_checks_are_not_small(monkeypatch):
    """Leaving out the Hessian terms, or replaying other masks, is far outside the tolerance of the test above."""
    model, batch = bits()
    algorithm = SemiAmortised(steps=3, **FREE)
    wanted = gradients(model, lambda: exact_unroll(algorithm, model, batch))

    class StraightThrough(SemiAmortised):
        def hessian_vector(self, visit, v, gradient):
            return [*map(torch.zeros_like, [visit.d_at, *visit.d_theta]), torch.zeros(())]

    for got, exact in zip(gradients_of(StraightThrough(steps=3, **FREE), model, batch), wanted, strict=True):
        assert error(got, exact) > 0.05
    original = module.Visit
    monkeypatch.setattr(module, "Visit", lambda draw, *rest: original(draw + 1, *rest))
    for got, exact in zip(gradients_of(algorithm, model, batch), wanted, strict=True):
        assert error(got, exact) > 0.05


def test_in_single_precision_the_papers_eps_drowns_in_rounding():
    """Why a run may want a larger eps than the default: the digits that the subtraction leaves."""
    model, batch = bits()
    model, batch = model.float(), batch._replace(x=batch.x.float())
    wanted = gradients(model, lambda: exact_unroll(SemiAmortised(), model, batch))
    papers, larger = (gradients_of(SemiAmortised(eps=eps, **FREE), model, batch) for eps in (1e-5, 1e-3))
    for paper, large, exact in zip(papers, larger, wanted, strict=True):
        assert error(large, exact) < 0.1 * error(paper, exact)


@pytest.mark.parametrize("build", [text, images])
def test_library_models_pass_the_decoder_2k_plus_1_times_and_learn(build):
    model, batch = build()
    passes, original = [], model.decoder.log_prob
    model.decoder.log_prob = lambda x, z: (passes.append(len(x)), original(x, z))[1]
    algorithm, losses = SemiAmortised(steps=3), []
    optimisers = Optimisers(
        *(torch.optim.Adam(p, 0.02) for p in (model.encoder_parameters(), model.decoder_parameters()))
    )
    for _ in range(20):
        step = algorithm.step(model, batch, optimisers, algorithm.begin())
        losses.append(float(step.loss.loss))
    assert len(passes) == 20 * (2 * 3 + 1)
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


def test_refinement_lowers_the_loss_of_its_batch():
    model, batch = bits()
    model.eval()
    q = model.encode(batch.x)
    better = SemiAmortised().evaluated(model).encode(batch.x)
    noise = torch.randn(500, *q.mu.shape, dtype=q.mu.dtype).unsqueeze(2)

    def mean_loss(q):
        return torch.stack([model.loss_at(batch.x, q, noise=n).loss.mean() for n in noise]).mean()

    with torch.no_grad():
        assert mean_loss(better) < mean_loss(q) - 0.5


# -- clipping ----------------------------------------------------------------------------------------------------------


def first_products(clip_order, svi_max_norm):
    """Hv in theta at lambda_0 (unclipped, then as used) by either order, and the plain gradient there."""
    model, batch = bits()
    theta, algorithm = list(model.decoder_parameters()), SemiAmortised(clip_order=clip_order, svi_max_norm=svi_max_norm)
    q = model.encode(batch.x)
    at = torch.stack([q.mu, q.logvar]).detach()

    def gradient(at, seed):
        return module.gradient_at(model, batch, theta, at, seed)

    d_at, *d_theta = gradient(at, 7)
    _, *products, norm = algorithm.hessian_vector(module.Visit(7, at, d_at, d_theta), torch.ones_like(at), gradient)
    used = module.limited(products, svi_max_norm)
    return *(torch.cat([t.flatten() for t in ts]) for ts in (products, used, d_theta)), float(norm)


def test_clipping_orders_agree_below_the_limit_and_part_above_it():
    exact, _, plain, norm = first_products("after", INF)
    limit = norm / 2
    for clip_order in module.CLIP_ORDERS:
        torch.testing.assert_close(first_products(clip_order, 2 * norm)[0], exact)
    after, before = first_products("after", limit), first_products("before", limit)
    torch.testing.assert_close(after[0], exact)
    assert abs(cosine(exact, plain)) < 0.9
    # as released: (g / 2 - g) / eps, then cut to the limit; nothing of the Hessian is left in it
    torch.testing.assert_close(before[0], -0.5 * plain / 1e-5, rtol=1e-3, atol=1e-3 * float(before[0].abs().max()))
    assert cosine(before[1], plain) < -0.9999
    assert float(before[1].norm()) == pytest.approx(limit, rel=1e-4)


def test_the_orders_give_other_gradients_once_a_norm_passes_the_limit():
    model, batch = bits()
    limits = {"max_norm": INF, "svi_max_norm": 1.0}
    after, before = (gradients_of(SemiAmortised(clip_order=o, **limits), model, batch) for o in module.CLIP_ORDERS)
    for one, other in zip(after, before, strict=True):
        assert error(other, one) > 0.1


def test_no_refinement_step_is_longer_than_the_clip_allows():
    """Released: mu's and logvar's gradients have a norm each."""
    algorithm = SemiAmortised(steps=1, svi_max_norm=2.0)
    gradient = torch.stack([torch.full((3, 2), 100.0), torch.full((3, 2), 0.1)])
    last, _ = algorithm.refine(torch.zeros(2, 3, 2), lambda at, seed: [gradient], [0])
    assert float(last[0].norm()) == pytest.approx(2, rel=1e-5)
    torch.testing.assert_close(last[1], -gradient[1])


def scripted(d_at, d_theta):
    """A gradient that is the same everywhere, and a visit (lambda = 0) where it was zero."""
    zeros = torch.zeros_like(d_at)
    return (lambda at, seed: [d_at, d_theta]), module.Visit(0, zeros, zeros, [torch.zeros_like(d_theta)])


def test_products_on_the_way_back_are_clipped_in_theta_and_in_lambda():
    weight = nn.Parameter(torch.zeros(5))
    gradient, visit = scripted(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]), torch.full((5,), 7.0))
    d_at, [norm] = SemiAmortised(svi_max_norm=2.0).sweep_back(torch.zeros(2, 1, 2), [visit], gradient, [weight])
    torch.testing.assert_close(d_at, torch.tensor([[[-1.2, 0.0]], [[0.0, -1.6]]]))  # mu and logvar together: 2
    torch.testing.assert_close(weight.grad, torch.full((5,), -2 / 5**0.5))
    assert float(norm) == pytest.approx((3**2 + 4**2 + 5 * 7**2) ** 0.5)


def test_before_subtracts_a_clipped_gradient_in_lambda_and_an_unclipped_one_in_theta():
    d_at, d_theta = torch.tensor([[[6.0]], [[1.0]]]), torch.tensor([8.0])
    gradient, visit = scripted(d_at, d_theta)
    visit = visit._replace(d_at=d_at, d_theta=[d_theta])
    algorithm = SemiAmortised(svi_max_norm=2.0, eps=0.5, clip_order="before")
    of_lambda, of_theta, _ = algorithm.hessian_vector(visit, torch.ones(2, 1, 1), gradient)
    scale = 2 / (6**2 + 1 + 8**2) ** 0.5
    torch.testing.assert_close(of_lambda.flatten(), torch.tensor([6 * scale - 2, scale - 1]) / 0.5)
    torch.testing.assert_close(of_theta, torch.tensor([8 * scale - 8]) / 0.5)


def test_a_step_logs_its_perturbed_gradients():
    model, batch = bits()
    algorithm = SemiAmortised(steps=4)
    step = algorithm.step(model, batch, sgd(model), {})
    assert (step.phase, step.inner_steps) == ("plain", 0)
    assert step.logged["perturbed_norm"] > 0
    assert all(type(value) is float for value in step.logged.values())
    for limit, share in ((1e-3, 1.0), (INF, 0.0)):
        step = replace(algorithm, svi_max_norm=limit).step(model, batch, sgd(model), {})
        assert step.logged["perturbed_clipped"] == share
    assert SemiAmortised(steps=0).step(model, batch, sgd(model), {}).logged == {}


# -- what stays as it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 3])
def test_batchnorm_statistics_move_once_a_step(steps):
    """Also the decoder's, though it is passed 2K + 1 times; by what the final pass saw, so K changes their values."""
    model, batch = images()
    SemiAmortised(steps=steps).step(model, batch, sgd(model), SemiAmortised().begin())
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {int(layer.num_batches_tracked) for layer in layers} == {1}
    assert all(layer.track_running_stats for layer in layers)
    assert not any(torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean)) for layer in layers)


@pytest.mark.parametrize("build", [text, images])
def test_evaluation_is_deterministic_and_leaves_no_trace(build):
    model, batch = build()
    model.train()
    model.encoder.eval()  # a mode of its own must survive
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [part.training for part in model.modules()]
    refined = SemiAmortised(steps=3).evaluated(model)
    with torch.no_grad():
        one = refined.encode(batch.x)
    torch.manual_seed(123)
    assert not torch.equal(torch.get_rng_state(), rng)
    two = refined.encode(batch.x)  # another random state, and gradients on
    torch.set_rng_state(rng)
    refined.encode(batch.x)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(one.mu, two.mu) and torch.equal(one.logvar, two.logvar)
    assert not (two.mu.requires_grad or two.logvar.requires_grad)
    assert modes == [part.training for part in model.modules()]
    assert all(p.requires_grad and torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.allclose(one.mu, model.encode(batch.x).mu)


def test_the_toys_looks_refine_in_batches_of_trainings_size():
    config = resolve("synthetic", "sa-vae", "smoke", 0)
    data = load("synthetic", config.data, profile="smoke")
    model = trainer_of(config, data, "cpu").evaluated.eval()
    probe = spread_examples(data.valid, config.evaluation.probe)
    seen = observer(config, data, "cpu")(model, 1)["kl"]
    of_batches, of_all = (torch.cat([model.encode(x).kl() for x in xs]).mean() for xs in (probe, [torch.cat(probe)]))
    assert seen == pytest.approx(float(of_batches), rel=1e-5)
    assert float(of_all) < 0.9 * float(of_batches)  # a batch's mean: the larger it is, the shorter an example's steps


def test_evaluation_refines_at_weight_one_whatever_the_hinge_of_training():
    model, batch = bits()
    hinged = VAE(model.encoder, model.decoder, free_nats=50.0)
    ways = [SemiAmortised(steps=2).evaluated(m).encode(batch.x).mu for m in (model, hinged)]
    assert torch.equal(*ways)


@pytest.mark.parametrize("build", [text, images])
def test_metrics_take_the_refined_model_in_the_place_of_the_model(build):
    model, batch = build()
    unrefined, refined = (SemiAmortised(steps=steps).evaluated(model) for steps in (0, 2))
    assert refined.training
    assert not refined.eval().training
    assert not model.training

    def values(evaluated):
        generator = torch.Generator().manual_seed(3)
        seen = validate(evaluated, [batch.x], generator)
        return seen, metrics_of(evaluated, [batch.x], generator, iw_samples=(1, 5))

    assert values(unrefined) == values(model)
    for changed, plain in zip(values(refined), values(model), strict=True):
        assert changed.keys() == plain.keys()
        assert changed["kl"] != plain["kl"]


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_with_the_same_numbers():
    def trainer():
        model, _ = text()
        data, schedule = tiny_data(), Schedule(lr=0.1, max_epochs=2)
        method = {"objective": Objective(), "inference": SemiAmortised(steps=2), "schedule": schedule}
        return Trainer(model, data.train, data.valid, seed=0, **method)

    def kill(made):
        if made.state.iteration == 3:
            raise Killed

    whole, killed = trainer(), trainer()
    torch.manual_seed(5)
    whole.fit()
    torch.manual_seed(5)
    with pytest.raises(Killed):
        killed.fit(kill)
    saved, resumed = copy.deepcopy(killed.state_dict()), trainer()
    torch.manual_seed(6)
    resumed.load_state_dict(saved)
    resumed.fit()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
    assert whole.state.history[-1]["valid_loss"] == resumed.state.history[-1]["valid_loss"]


# -- settings ----------------------------------------------------------------------------------------------------------


def test_bad_settings_are_named():
    with pytest.raises(UnknownName, match="after, before"):
        SemiAmortised(clip_order="befor")
    for name, value in [("steps", -1), ("step_size", 0), ("eps", 0.0), ("momentum", 1.0), ("momentum", -0.1)]:
        with pytest.raises(ValueError, match=f"{name} must be"):
            SemiAmortised(**{name: value})
    for name in ("max_norm", "svi_max_norm"):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            SemiAmortised(**{name: float("nan")})


def test_a_prior_without_a_closed_form_is_refused():
    model, batch = bits()
    open_prior = VAE(model.encoder, model.decoder, SampledKL())
    with pytest.raises(ValueError, match=r"closed-form KL.*SampledKL"):
        SemiAmortised().step(open_prior, batch, sgd(model), SemiAmortised().begin())
    with pytest.raises(ValueError, match="closed-form KL"):
        SemiAmortised().evaluated(open_prior)
