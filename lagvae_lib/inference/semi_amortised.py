"""Semi-amortised inference (SA-VAE; Kim et al. 2018): the encoder's q(z|x) is refined by gradient steps on the ELBO.

With lambda_0 = (mu, logvar) = encoder(x), a batch's mean loss L_k (step k has noise and dropout masks of its own) and
m_{-1} = 0, the K steps are

    m_k = momentum * m_{k-1} - clip(dL_k/dlambda_k),    lambda_{k+1} = lambda_k + step_size * m_k

and the model is trained on the loss at lambda_K, differentiated through all of them. That asks for products of the
Hessian with a vector, which are finite differences of gradients: 2K + 1 passes through the decoder an iteration.
lambda is one tensor [2, B, nz] here, mu and then logvar.

L_k is a mean over the batch, so that the length of a step falls with the batch size and the norms that are clipped are
those of whole batches, as in the released code; q(z|x) of an example depends a little on the batch it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lagvae_lib.errors import BadValue
from lagvae_lib.inference import MAX_NORM, Batch, Optimisers, Step
from lagvae_lib.inference.gradients import clip, means, share, zero_grad
from lagvae_lib.lazy import torch
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_noise
from lagvae_lib.models.holding import evaluating, without_gradient, without_statistics
from lagvae_lib.names import choose, require
from lagvae_lib.numerics import exact

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lagvae_lib.models.vae import VAE, Loss

CLIP_ORDERS = ("after", "before")
EVALUATION_SEED = 20_180_208  # of the noise that refines q(z|x) in evaluation; no evaluation draws its samples by it
Gradient = Callable[
    ["Tensor", "int | Tensor"], Sequence["Tensor"]
]  # lambda, what fixes the noise -> d lambda, d theta...


@dataclass(frozen=True)
class SemiAmortised:
    """The knobs of SA-VAE; the defaults are those that He et al. ran it with.

    steps, step_size, momentum: K and the updates of lambda. K = 0 is `Amortised`, bit for bit.
    eps: length of the finite differences as a multiple of the vector's.
    max_norm: limit of the final gradient of encoder and decoder together, as in `Amortised`.
    svi_max_norm: limit of every norm inside the refinement; infinity for none. Going forward, the gradients of mu and
        of logvar are clipped each by its own norm, as released.
    clip_order: what is clipped on the way back. "after": the Hessian-vector products. "before": the gradient at the
        perturbed lambda (with theta's, jointly), from which the one stored on the way forward is then subtracted, as
        released. Where that norm passes the limit the difference is next to (a negative multiple of) the plain gradient
        over `eps`, and the clipping that follows makes it a plain gradient of norm `svi_max_norm` each step.
    """

    steps: int = 10
    step_size: float = 1.0
    momentum: float = 0.5
    eps: float = 1e-5
    max_norm: float = MAX_NORM
    svi_max_norm: float = MAX_NORM
    clip_order: str = "after"

    def __post_init__(self):
        choose(self.clip_order, CLIP_ORDERS, "clip_order")
        require(self, "steps", least=0, whole=True)
        require(self, "momentum", least=0, below=1)
        require(self, "step_size eps max_norm svi_max_norm", above=0)

    def begin(self) -> dict:
        """No state."""
        return {}

    def step(self, model: VAE, batch: Batch, optimisers: Optimisers, state: dict) -> Step:
        """One iteration on the batch: refine, differentiate through the refinement, step both optimisers.

        Logged are the mean norm of the perturbed gradients (lambda and theta jointly, before any clipping) and the
        share of them over `svi_max_norm`: those for which `clip_order` makes a difference of kind. Raises ValueError
        for a prior without a closed-form KL.
        """
        _check(model)
        encoder, theta = list(model.encoder_parameters()), list(model.decoder_parameters())
        zero_grad([*encoder, *theta])
        loss, norms = self.backward(model, batch, theta)
        clipped = clip([*encoder, *theta], self.max_norm)
        for optimiser in optimisers:
            if optimiser is not None:
                optimiser.step()
        return Step(means(loss), clipped=share(clipped), logged=self._logged(norms))

    def backward(self, model: VAE, batch: Batch, theta: list[nn.Parameter]) -> tuple[Loss, list[Tensor]]:
        """Add the total gradient of the loss at lambda_K to every parameter's `grad`.

        Returns that loss and the norms of the perturbed gradients. Of the random state it consumes K seeds and what the
        final pass draws, so that a run that was killed goes on with the same numbers.
        """
        q = model.encode(batch.x)
        start = torch.stack([q.mu, q.logvar]).detach()
        gradient = partial(gradient_at, model, batch, theta)
        with without_statistics(model, theta), exact(model):
            last, visits = self.refine(start, gradient, draw_seeds(self.steps))
        last.requires_grad_()
        loss = model.loss_at(batch.x, DiagonalGaussian(*last), batch.kl_weight)
        loss.loss.mean().backward()
        with without_statistics(model, theta), exact(model):
            d_start, norms = self.sweep_back(last.grad, visits, gradient, theta)
        torch.autograd.backward([q.mu, q.logvar], list(d_start))
        return loss, norms

    def refine(self, at: Tensor, gradient: Gradient, draws: Iterable) -> tuple[Tensor, list[Visit]]:
        """lambda_K from lambda_0 [2, B, nz], one step for each of `draws`, and what was seen on the way."""
        momentum, visits = torch.zeros_like(at), []
        for draw in draws:
            d_at, *d_theta = gradient(at, draw)
            visits.append(Visit(draw, at, d_at, d_theta))
            momentum = self.momentum * momentum - self._clip_halves(d_at)
            at = at + self.step_size * momentum
        return at, visits

    def sweep_back(
        self, d_at: Tensor, visits: list[Visit], gradient: Gradient, theta: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """dL/dlambda_0 from dL/dlambda_K, both [2, B, nz], and the perturbed gradients' norms; adds to theta's grad.

        The clipping of the forward steps is not differentiated (its derivative is taken to be one).
        """
        d_momentum, norms = torch.zeros_like(d_at), []
        for visit in reversed(visits):
            d_momentum = d_momentum + self.step_size * d_at
            product, *theta_products, norm = self.hessian_vector(visit, d_momentum, gradient)
            for parameter, part in zip(theta, limited(theta_products, self.svi_max_norm), strict=True):
                parameter.grad = -part if parameter.grad is None else parameter.grad.sub_(part)
            [d_at] = limited([d_at - product], self.svi_max_norm)
            d_momentum = self.momentum * d_momentum
            norms.append(norm)
        return d_at, norms

    def hessian_vector(self, visit: Visit, v: Tensor, gradient: Gradient) -> list[Tensor]:
        """[H_lambda v, then H_theta,lambda v for each of theta, then the norm of the perturbed gradient], unclipped.

        The subtraction loses digits, which is why no setting of precision reaches it (`backward`). With a small trained
        LSTM-VAE in single precision (K = 10, nothing clipped) the total gradient was off by 6% (median of 12 batches;
        0.0005% in double precision) at the paper's eps = 1e-5, by 0.3% to 0.7% at 1e-4, 0.2% at 1e-3 and 1% to 2% at
        1e-2, where the curve is no longer straight. Of a collapsed model's encoder gradient, which is next to zero,
        nothing was left at 1e-5 (160%), and 3% was wrong at 1e-2.
        """
        perturbed, d_at = gradient(visit.at + self.eps * v, visit.draw), visit.d_at
        norm = joint_norm(perturbed)
        if self.clip_order == "before":
            perturbed, d_at = limited(perturbed, self.svi_max_norm), self._clip_halves(d_at)
        stored = [d_at, *visit.d_theta]
        return [*((new - old) / self.eps for new, old in zip(perturbed, stored, strict=True)), norm]

    def _clip_halves(self, d_at: Tensor) -> Tensor:
        """A gradient in lambda with mu's part and logvar's clipped each by its own norm."""
        return torch.cat([limited([half], self.svi_max_norm)[0] for half in d_at.split(1)])

    def _logged(self, norms: list[Tensor]) -> dict[str, float]:
        """One transfer from the device."""
        if not norms:
            return {}
        stacked = torch.stack(norms)
        mean, share = torch.stack([stacked.mean(), (stacked > self.svi_max_norm).to(stacked.dtype).mean()]).tolist()
        return {"perturbed_norm": mean, "perturbed_clipped": share}

    def epoch_end(self, state: dict, mi: float, mi_large: float | None = None) -> dict:
        """Nothing changes."""
        return state

    def evaluated(self, model: VAE) -> Refined:
        """`model` with the refined q(z|x) in the encoder's place, for the metrics.

        Raises ValueError for a prior without a closed-form KL.
        """
        _check(model)
        return Refined(model, self)


class Visit(NamedTuple):
    """Step k of a refinement: what fixed its noise and masks, lambda_k and the unclipped gradients there."""

    draw: int | Tensor
    at: Tensor  # [2, B, nz]
    d_at: Tensor  # [2, B, nz]
    d_theta: list[Tensor]


class Refined:
    """A model for evaluation whose q(z|x) is the encoder's after K steps on the negative ELBO (KL weight 1).

    The steps are made in evaluation mode with noise of a fixed seed for each batch. They change nothing: neither
    gradients nor the mode nor the global random state.
    """

    def __init__(self, model: VAE, algorithm: SemiAmortised):
        self.model, self.algorithm = model, algorithm
        self.decoder, self.prior = model.decoder, model.prior

    @property
    def training(self) -> bool:
        return self.model.training

    def eval(self) -> Refined:
        """Put the model itself into evaluation mode."""
        self.model.eval()
        return self

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log p(z) over the last dimension, nats."""
        return self.model.prior_log_prob(z)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """The refined q(z|x), without a graph, also where the caller has switched gradients off."""
        with evaluating(self.model), without_gradient(self.model.parameters()):
            q = self.model.encode(x)
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            shape = (len(q.mu), 1, q.mu.shape[1])
            draws = (standard_noise(shape, q.mu, generator) for _ in range(self.algorithm.steps))
            last, _ = self.algorithm.refine(torch.stack([q.mu, q.logvar]), partial(self._gradient, x), draws)
        return DiagonalGaussian(*last)

    def _gradient(self, x: Tensor, at: Tensor, noise: Tensor) -> Sequence[Tensor]:
        """d/dlambda of the batch's mean negative ELBO; of the loss's terms, as training may put a hinge on the KL."""
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            terms = self.model.loss_at(x, DiagonalGaussian(*at), noise=noise)
            return torch.autograd.grad((terms.reconstruction + terms.kl).mean(), [at])


def gradient_at(model: VAE, batch: Batch, theta: list[nn.Parameter], at: Tensor, seed: int) -> Sequence[Tensor]:
    """Gradients of the batch's mean loss in lambda and in each of theta; a seed gives its noise and dropout masks."""
    at = at.detach().requires_grad_()
    with seeded(seed, at.device):
        loss = model.loss_at(batch.x, DiagonalGaussian(*at), batch.kl_weight).loss.mean()
    return torch.autograd.grad(loss, [at, *theta], allow_unused=True, materialize_grads=True)


def draw_seeds(count: int) -> list[int]:
    """Seeds from the global random state, which is in every checkpoint; none leave it as it is."""
    return torch.randint(2**32, (count,)).tolist() if count else []


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block the global random states of the processor and of `device` are the seed's, after it as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed accelerators that are not forked
        for accelerator in devices:
            with torch.cuda.device(accelerator):
                torch.cuda.manual_seed(seed)
        yield


def joint_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all of them as one vector."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))


def limited(tensors: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """The tensors, scaled alike to a joint norm of at most `max_norm` (infinity: as they are)."""
    if max_norm == float("inf") or not tensors:
        return list(tensors)
    scale = (max_norm / (joint_norm(tensors) + 1e-6)).clamp(max=1)
    return [tensor * scale for tensor in tensors]


def _check(model: VAE) -> None:
    if not model.prior.closed_form:
        raise BadValue(
            f"SA-VAE needs a prior with a closed-form KL, N(0, I); under {type(model.prior).__name__} the gradient"
            " in lambda would be that of a sampled KL, and may reach the encoder through the prior"
        )
