"""The image model written the way a textbook would: whole kernels times a mask, z's maps beside the image for every
sample, automatic differentiation through encoder and decoder in every step, and a whole-image pass per sampled pixel.

The loss, the training step and the importance-weighted bound are those of `benchmarks.textbook`. Nothing here is used
by the library.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions, the first with stride 2, beside a 1x1 with stride 2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ELU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.main(x) + self.short(x))


class Encoder(nn.Module):
    """q(z|x): mean and log variance [B, nz]. Parameters are named as the library's."""

    def __init__(self, nz: int, channels: int, last: int):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, channels), Block(channels, channels), Block(channels, channels))
        self.rest = nn.Sequential(nn.Conv2d(channels, last, 4, bias=False), nn.BatchNorm2d(last), nn.ELU())
        self.linear = nn.Linear(last, 2 * nz)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(self.rest(self.blocks(x)).flatten(1)).chunk(2, dim=1)


class MaskedConv(nn.Conv2d):
    """A whole k x k kernel times a mask: no pixel below, none to the right, and itself only where not `strict`.

    strict: of how many of the first inputs the pixel itself is masked too; the inputs from `free` on are not masked.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, strict: int = 0, free: int | None = None):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        middle, mask = kernel // 2, torch.ones(outputs, inputs, kernel, kernel)
        mask[:, :free, middle + 1 :] = 0
        mask[:, :free, middle, middle + 1 :] = 0
        mask[:, :strict, middle, middle] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, padding=self.padding)


class MaskedBlock(nn.Module):
    """A residual block of the decoder."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ELU(),
            MaskedConv(half, half, kernel),
            nn.BatchNorm2d(half),
            nn.ELU(),
            nn.Conv2d(half, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.layers(x) + x)


class Decoder(nn.Module):
    """p(x|z): x [B, 1, H, W], z [B, nz]; with nz = 0 a PixelCNN, z None."""

    def __init__(self, nz: int, channels: int, kernels: Sequence[int], maps: int, size: int = 28):
        super().__init__()
        self.size = size
        self.z_to_maps = nn.Linear(nz, maps * size * size) if nz else None
        self.first = MaskedConv(1 + (maps if nz else 0), channels, kernels[0], strict=1, free=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(MaskedBlock(channels, kernel) for kernel in kernels[1:])
        self.skips = nn.ModuleList(MaskedBlock(channels, kernel) for kernel in kernels[1:-1])
        self.last = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ELU())
        self.logit = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Logits [B, 1, H, W]."""
        maps = [] if z is None else [self.z_to_maps(z).view(len(z), -1, self.size, self.size)]
        outputs = [F.elu(self.first_norm(self.first(torch.cat([x, *maps], dim=1))))]
        for i, block in enumerate(self.blocks, start=1):
            hidden = outputs[-1]
            if i > 2:
                hidden = hidden + self.skips[i - 3](outputs[i - 3])
            outputs.append(block(hidden))
        return self.logit(self.last(outputs[-1] + self.skips[-1](outputs[-3])))

    def nll(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x|z), [B] nats."""
        return F.binary_cross_entropy_with_logits(self(x, z), x, reduction="none").sum((1, 2, 3))

    @torch.no_grad()
    def sample(self, z: Tensor, uniforms: Tensor, pixels: int | None = None) -> Tensor:
        """Images [B, 1, H, W]: one whole pass per pixel; only the first `pixels` of them where that is given."""
        x = torch.zeros_like(uniforms).unsqueeze(1)
        for pixel in range(pixels or uniforms[0].numel()):
            i, j = divmod(pixel, self.size)
            x[:, 0, i, j] = (uniforms[:, i, j] < torch.sigmoid(self(x, z)[:, 0, i, j])).float()
        return x


def load(decoder: Decoder, values: dict[str, Tensor]) -> None:
    """Give `decoder` what the library's decoder has under its own names: parameters or their gradients."""
    decoder.load_state_dict(under_textbook_names(values, decoder), strict=False)


def under_textbook_names(values: dict[str, Tensor], decoder: Decoder) -> dict[str, Tensor]:
    """What the library's decoder has by name, under the names and in the layout of the textbook's."""
    renamed = {name: values[name] for name in values if name.startswith(("z_to_maps", "first_norm", "logit"))}
    of_z = [values["maps.weight"]] if "maps.weight" in values else []
    renamed["first.weight"] = torch.cat([_whole(values["first.weight"]), *of_z], dim=1)
    layers = {"narrow": 0, "narrow_norm": 1, "causal": 3, "causal_norm": 4, "widen": 6, "widen_norm": 7}
    for name, value in values.items():
        stack, _, rest = name.partition(".")
        if stack in ("blocks", "skips"):
            number, layer, leaf = rest.split(".")
            renamed[f"{stack}.{number}.layers.{layers[layer]}.{leaf}"] = _whole(value) if layer == "causal" else value
        elif stack in ("last", "last_norm"):
            renamed[f"last.{int(stack == 'last_norm')}.{rest}"] = value
    unknown = set(renamed) ^ {name for name in decoder.state_dict() if name.rpartition(".")[2] != "mask"}
    unknown = {name for name in unknown if "running" not in name and "num_batches" not in name}
    if unknown:
        raise KeyError(f"the two decoders do not have the same parameters: {sorted(unknown)}")
    return renamed


def _whole(causal: Tensor) -> Tensor:
    """A causal kernel [outputs, inputs, k // 2 + 1, k] with the rows below it, which are zero."""
    return F.pad(causal, (0, 0, 0, causal.shape[3] // 2))


def gradients(decoder: nn.Module, like: Decoder) -> list[Tensor]:
    """The gradients of the library's decoder in the order and layout of the textbook's parameters."""
    named = under_textbook_names({name: parameter.grad for name, parameter in decoder.named_parameters()}, like)
    return [named[name] for name, _ in like.named_parameters()]
