"""The paper's image models (section 5.1 and appendix): ResNet encoder, PixelCNN decoder with z beside the image.

Images are float [B, 1, H, W] of 0 and 1. A kernel of the decoder holds the causal half alone, the rows above the
current pixel and its own row, so that the half that a mask would discard is not computed.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lagvae_lib.models.causal import CausalConv, causal
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.ops import lower
from lagvae_lib.names import choose

SIZE = 28
LAST_STARTS = ("he", "torch")
MAPS = 512  # channels times (image, z) pairs seen at once without gradients: about what fits into a core's cache
PAIRS_ACCELERATOR = 512  # enough to fill a GPU; memory is what bounds it


def initialise(module: nn.Module) -> None:
    """He-normal convolutions and Xavier linear layers, biases zero; BatchNorm starts as the identity.

    As in the released code, He's variance counts outgoing connections of the whole kernel k x k, also where a half of
    it is masked: in the decoder's first layer the image and the maps of z begin with equal weights.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.normal_(child.weight, std=math.sqrt(2 / (child.weight.shape[3] ** 2 * child.out_channels)))
        elif isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
        if isinstance(child, (nn.Conv2d, nn.Linear)) and child.bias is not None:
            nn.init.zeros_(child.bias)
        if isinstance(child, CausalConv):
            with torch.no_grad():
                child.weight *= child.mask


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first with stride 2, beside a 1x1 with stride 2; BatchNorm and ELU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ELU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.main(x) + self.short(x), inplace=True)


class ResNetEncoder(nn.Module):
    """q(z|x) = N(mu, diag exp(logvar)): three residual blocks halve the image, one convolution takes what is left.

    channels: of the three blocks. last: of the vector that mu and logvar are linear in.
    """

    def __init__(self, nz: int, channels: Sequence[int] = (64, 64, 64), last: int = 512, size: int = SIZE):
        super().__init__()
        blocks, inputs = [], 1
        for outputs in channels:
            blocks.append(ResidualBlock(inputs, outputs))
            inputs, size = outputs, (size + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.rest = nn.Sequential(
            nn.Conv2d(inputs, last, size, bias=False), nn.BatchNorm2d(last), nn.ELU(inplace=True), nn.Flatten()
        )
        self.linear = nn.Linear(last, 2 * nz)
        initialise(self)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        hidden = self.rest(self.blocks(x.contiguous(memory_format=torch.channels_last)))
        return DiagonalGaussian(*self.linear(hidden).chunk(2, dim=1))


class CausalBlock(nn.Module):
    """A residual block: 1x1 to half the channels, causal convolution, 1x1 back; BatchNorm and ELU."""

    def __init__(self, channels: int, kernel: int, count_unused: bool = False):
        super().__init__()
        half = channels // 2
        self.narrow = nn.Conv2d(channels, half, 1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(half)
        self.causal = CausalConv(half, half, kernel, count_unused=count_unused)
        self.causal_norm = nn.BatchNorm2d(half)
        self.widen = nn.Conv2d(half, channels, 1, bias=False)
        self.widen_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.elu(self.narrow_norm(self.narrow(x)), inplace=True)
        hidden = F.elu(self.causal_norm(self.causal(hidden)), inplace=True)
        return F.elu(self.widen_norm(self.widen(hidden)) + x, inplace=True)

    def folded(self) -> tuple[Tensor, ...]:
        """Weights and biases of the three convolutions with BatchNorm's running statistics in them."""
        return (
            *fold(self.narrow.weight, self.narrow_norm),
            *fold(self.causal.causal_weight(), self.causal_norm),
            *fold(self.widen.weight, self.widen_norm),
        )


def fold(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what `weight` and then `norm` do in evaluation mode."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


class PixelCNNDecoder(nn.Module):
    """p(x|z) = prod_i Bernoulli(x_i | x_<i, z) in raster order; without z (nz = 0) the PixelCNN of the tables.

    z becomes `latent_maps` maps of the image's size. They are no pixels, so their kernels in the first layer are whole.
    From there on every layer is a `CausalBlock`; layer i > 2 also gets the output of layer i - 3 through a block of its
    own, and so does what the last layer hands on. kernels: of each layer, the first included. precision: dtype of the
    convolutions (autocast), None for float32. skip: every layer also gets a linear map of z, one number a channel
    (Skip-VAE, Dieng et al. 2019). last_start: "he", the last hidden layer begins as the others do; "torch", at torch's
    own scale, .4 of that, as released. count_unused: see `CausalConv`.
    """

    def __init__(
        self,
        nz: int,
        channels: int = 64,
        kernels: Sequence[int] = (7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3),
        latent_maps: int = 4,
        size: int = SIZE,
        skip: bool = False,
        last_start: str = "he",
        count_unused: bool = False,
    ):
        super().__init__()
        choose(last_start, LAST_STARTS, "last_start")
        self.nz, self.size = nz, size
        self.precision: torch.dtype | None = None
        self.first = CausalConv(1, channels, kernels[0], strict=True, count_unused=count_unused)
        if nz:
            self.z_to_maps = nn.Linear(nz, latent_maps * size * size)
            self.maps = nn.Conv2d(latent_maps, channels, kernels[0], padding=kernels[0] // 2, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.z_to_layers = nn.Linear(nz, channels * len(kernels[1:]), bias=False) if skip else None
        self.blocks = nn.ModuleList(CausalBlock(channels, kernel, count_unused) for kernel in kernels[1:])
        self.skips = nn.ModuleList(CausalBlock(channels, kernel, count_unused) for kernel in kernels[1:-1])
        self.last = nn.Conv2d(channels, channels, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(channels)
        self.logit = nn.Conv2d(channels, 1, 1, bias=False)
        initialise(self)
        if last_start == "torch":
            self.last.reset_parameters()
        self.logit.reset_parameters()  # torch's own, as released: He's for one output would begin with extreme logits

    def log_prob(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z) in nats, [B, k] for x [B, 1, H, W] and z [B, k, nz] (k = 1 and z None without z).

        Raises ValueError where z is missing, or given to a decoder without it.
        """
        self.check(z)
        if self.training or torch.is_grad_enabled():
            samples = 1 if z is None else z.shape[1]
            logits = self.logits(x.repeat_interleave(samples, dim=0), z if z is None else z.flatten(0, 1))
            return bernoulli(x.repeat_interleave(samples, dim=0), logits).view(-1, samples)
        return self._log_prob_folded(x, z)

    def logits(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Logit of each pixel given those before it, [B, 1, H, W], for z [B, nz]; BatchNorm as the mode has it."""
        self.check(z)
        with lower(self.precision, x):
            hidden = self.first(x)
            if z is not None:
                hidden = hidden + self.z_share(z)
            hidden = F.elu(self.first_norm(hidden.contiguous(memory_format=torch.channels_last)), inplace=True)
            hidden = through_blocks(hidden, self.blocks, self.skips, self.layer_codes(z))
            hidden = F.elu(self.last_norm(self.last(hidden)), inplace=True)
            return self.logit(hidden).to(x.dtype)

    def check(self, z: Tensor | None) -> None:
        """Raises ValueError unless z, [..., nz], is there exactly where the decoder has one."""
        if (0 if z is None else z.shape[-1]) != self.nz:
            raise ValueError(f"this decoder takes z of {self.nz} dimensions, not {None if z is None else z.shape[-1]}")

    def layer_codes(self, z: Tensor | None) -> list[Tensor] | None:
        """What z [B, nz] adds to the input of each block where it skips, [B, channels, 1, 1] each; else None."""
        if self.z_to_layers is None:
            return None
        return list(self.z_to_layers(z)[:, :, None, None].chunk(len(self.blocks), dim=1))

    def z_share(self, z: Tensor) -> Tensor:
        """What z [B, nz] adds to the first layer before BatchNorm, [B, channels, H, W].

        Linear layer and convolution together are one linear map, so nz + 1 images are convolved and not B.
        """
        basis = self.maps(self.z_images()).permute(0, 2, 3, 1)  # so that the product comes out channels-last
        flat = basis.flatten(1)
        return torch.addmm(flat[-1], z, flat[:-1]).view(len(z), *basis.shape[1:]).permute(0, 3, 1, 2)

    def z_images(self) -> Tensor:
        """The maps that each dimension of z makes by itself, and the bias's, [nz + 1, latent_maps, H, W]."""
        linear = self.z_to_maps
        return torch.cat([linear.weight.t(), linear.bias.unsqueeze(0)]).view(self.nz + 1, -1, self.size, self.size)

    # -- evaluation mode: BatchNorm folded into the convolutions ---------------------------------------------------

    def folded(self) -> "Folded":
        """The decoder of evaluation mode. Raises ValueError in training mode."""
        return Folded(self)

    @torch.no_grad()
    def _log_prob_folded(self, x: Tensor, z: Tensor | None) -> Tensor:
        """[B, k]: the image's share of the first layer once for all k samples, and few pairs at a time."""
        folded, samples = self.folded(), 1 if z is None else z.shape[1]
        share = folded.image_share(x)
        image = torch.arange(len(x), device=x.device).repeat_interleave(samples)
        flat = z if z is None else z.flatten(0, 1)
        parts, at_once = [], max(1, MAPS // share.shape[1]) if x.device.type == "cpu" else PAIRS_ACCELERATOR
        for start in range(0, len(image), at_once):
            pairs = slice(start, start + at_once)
            hidden = share[image[pairs]]
            if flat is not None:
                hidden += folded.z_share(flat[pairs])
            codes = self.layer_codes(flat if flat is None else flat[pairs])
            parts.append(bernoulli(x[image[pairs]], folded.logits(hidden, codes)))
        return torch.cat(parts).view(-1, samples)


Layer = Callable[[Tensor], Tensor]


def through_blocks(hidden: Tensor, blocks: Sequence[Layer], skips: Sequence[Layer], codes: Sequence[Tensor] | None):
    """The decoder between its first and its last layer: what the last layer is given, of the shape of `hidden`.

    Long skips: from the third block on, a block's input has its skip's view of the output three layers before added to
    it, and so has the last layer's. codes: added to each block's input (Skip-VAE), or None.
    """
    outputs = [hidden]
    for i, block in enumerate(blocks, start=1):
        if i > 2:
            hidden = hidden + skips[i - 3](outputs[i - 3])
        hidden = block(hidden if codes is None else hidden + codes[i - 1])
        outputs.append(hidden)
    return hidden + skips[-1](outputs[-3])


def bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log prod_i p(x_i), [B], of 0/1 images and logits [B, 1, H, W]."""
    return (x * logits - F.softplus(logits)).flatten(1).sum(1)


def require_evaluation(decoder: PixelCNNDecoder) -> None:
    """Raises ValueError in training mode."""
    if decoder.training:
        raise ValueError("the decoder must be in evaluation mode (running statistics): call model.eval()")


def elu_(x: Tensor) -> Tensor:
    """ELU in place, without a gradient.

    On a processor exp(x) - 1 is several times faster than the expm1 of `F.elu`, at an absolute error of 6e-8.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.elu_(x)
    return torch.maximum(x, x.clamp(max=0).exp_().sub_(1), out=x)


class Folded:
    """A decoder in evaluation mode as plain weights: what importance sampling and pixel-by-pixel sampling run on."""

    def __init__(self, decoder: PixelCNNDecoder):
        require_evaluation(decoder)
        self.decoder = decoder
        self.first, self.first_bias = fold(decoder.first.causal_weight(), decoder.first_norm)
        self.blocks = [FoldedBlock(*block.folded()) for block in decoder.blocks]
        self.skips = [FoldedBlock(*block.folded()) for block in decoder.skips]
        self.last, self.last_bias = fold(decoder.last.weight, decoder.last_norm)
        self.logit = decoder.logit.weight
        self.basis = self._basis() if decoder.nz else None

    def _basis(self) -> Tensor:
        """[nz + 1, H * W * C]: what each dimension of z, and then the bias, add to the first layer."""
        decoder = self.decoder
        weight, _ = fold(decoder.maps.weight, decoder.first_norm)
        return F.conv2d(decoder.z_images(), weight, padding=decoder.maps.padding).permute(0, 2, 3, 1).flatten(1)

    def image_share(self, x: Tensor) -> Tensor:
        """The first layer without z, [B, channels, H, W], before its ELU."""
        return causal(x, self.first, self.first_bias).contiguous(memory_format=torch.channels_last)

    def z_share(self, z: Tensor) -> Tensor:
        """z's share of it, for z [B, nz]."""
        flat = torch.addmm(self.basis[-1], z, self.basis[:-1])
        return flat.view(len(z), self.decoder.size, self.decoder.size, -1).permute(0, 3, 1, 2)

    def logits(self, hidden: Tensor, codes: list[Tensor] | None = None) -> Tensor:
        """Logits [B, 1, H, W] from the first layer before its ELU, whose memory is used; codes: `layer_codes`."""
        dtype = hidden.dtype
        with lower(self.decoder.precision, hidden):
            hidden = elu_(hidden)
            hidden = through_blocks(hidden, self.blocks, self.skips, codes)
            hidden = elu_(F.conv2d(hidden, self.last, self.last_bias))
            return F.conv2d(hidden, self.logit).to(dtype)


class FoldedBlock(NamedTuple):
    """A residual block as the weights and biases of its three convolutions."""

    narrow: Tensor
    narrow_bias: Tensor
    middle: Tensor
    middle_bias: Tensor
    widen: Tensor
    widen_bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        hidden = elu_(F.conv2d(x, self.narrow, self.narrow_bias))
        hidden = elu_(causal(hidden, self.middle, self.middle_bias))
        return elu_(F.conv2d(hidden, self.widen, self.widen_bias).add_(x))
