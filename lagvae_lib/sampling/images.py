"""Drawing images from a PixelCNN decoder, pixel by pixel, without computing the whole image for every pixel.

Every layer's output at a pixel depends on its inputs at that pixel and before it, all of which were computed when those
pixels were drawn; so each pixel costs one column through the network, read from cached inputs.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lagvae_lib.models.images import Folded, PixelCNNDecoder, require_evaluation, through_blocks


def sample(
    decoder: PixelCNNDecoder,
    z: Tensor | None,
    count: int | None = None,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Tensor:
    """Images [B, 1, H, W] from p(x|z), z [B, nz]; `count` of them from a decoder without z.

    uniforms: [B, H, W] in place of `generator`; a pixel is ink where its uniform lies below its probability.
    Raises ValueError in training mode, and where z or `count` does not fit the decoder.
    """
    uniforms = _uniforms(decoder, z, count, generator, uniforms)
    return _draw(decoder, z, uniforms, torch.zeros_like(uniforms).unsqueeze(1), 0)


def complete(
    decoder: PixelCNNDecoder,
    x: Tensor,
    z: Tensor | None,
    row: int,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Tensor:
    """x [B, 1, H, W] with the rows from `row` on drawn anew from p(x_below | x_above, z).

    uniforms: as in `sample`. Raises ValueError in training mode.
    """
    uniforms = _uniforms(decoder, z, len(x), generator, uniforms)
    image = x.clone()
    image[:, :, row:] = 0
    return _draw(decoder, z, uniforms, image, row)


def _uniforms(decoder, z, count, generator, uniforms) -> Tensor:
    if uniforms is not None:
        return uniforms
    if z is None and count is None:
        raise ValueError("a decoder without z must be told how many images to draw: count")
    size = (len(z) if z is not None else count, decoder.size, decoder.size)
    device = decoder.logit.weight.device
    return torch.rand(size, generator=generator, device=generator.device if generator else device).to(device)


@torch.no_grad()
def sample_naive(decoder: PixelCNNDecoder, z: Tensor | None, uniforms: Tensor, image=None, row: int = 0) -> Tensor:
    """The same by one pass of the whole image a pixel: what the cached version is tested and measured against.

    Raises ValueError in training mode.
    """
    require_evaluation(decoder)
    image = torch.zeros_like(uniforms).unsqueeze(1) if image is None else image.clone()
    image[:, :, row:] = 0
    for i in range(row, decoder.size):
        for j in range(decoder.size):
            probability = torch.sigmoid(decoder.logits(image, z)[:, 0, i, j])
            image[:, 0, i, j] = (uniforms[:, i, j] < probability).float()
    return image


@torch.no_grad()
def _draw(decoder: PixelCNNDecoder, z: Tensor | None, uniforms: Tensor, image: Tensor, row: int) -> Tensor:
    """Fill `image` from `row` on; the rows above only pass through the network, to fill the caches."""
    decoder.check(z)
    folded = decoder.folded()
    columns = _Columns(folded, z, len(image))
    for i in range(decoder.size):
        for j in range(decoder.size):
            logit = columns.logit(i, j, draw=i >= row)
            if i >= row:
                image[:, 0, i, j] = (uniforms[:, i, j] < torch.sigmoid(logit)).float()
            columns.see(image[:, 0, i, j], i, j)
    return image


class _Causal:
    """A causal convolution that is asked for one pixel at a time: its weight as a matrix, and its padded input."""

    def __init__(self, weight: Tensor, bias: Tensor, batch: int, size: int):
        outputs, inputs, rows, self.kernel = weight.shape
        self.reach = rows - 1
        self.weight = weight.permute(2, 3, 1, 0).reshape(-1, outputs)  # (row, column, input) x output
        self.bias = bias
        self.input = weight.new_zeros(batch, size + self.reach, size + 2 * self.reach, inputs)

    def put(self, value: Tensor, i: int, j: int) -> None:
        self.input[:, i + self.reach, j + self.reach] = value

    def at(self, i: int, j: int) -> Tensor:
        patch = self.input[:, i : i + self.reach + 1, j : j + self.kernel]
        return torch.addmm(self.bias, patch.reshape(len(patch), -1), self.weight)


class _Block:
    def __init__(self, weights: tuple[Tensor, ...], batch: int, size: int):
        narrow, self.narrow_bias, middle, middle_bias, widen, self.widen_bias = weights
        self.narrow, self.widen = narrow[:, :, 0, 0].t(), widen[:, :, 0, 0].t()
        self.middle = _Causal(middle, middle_bias, batch, size)

    def __call__(self, x: Tensor, i: int, j: int) -> Tensor:
        self.middle.put(F.elu(torch.addmm(self.narrow_bias, x, self.narrow)), i, j)
        hidden = F.elu_(self.middle.at(i, j))
        return F.elu_(torch.addmm(self.widen_bias, hidden, self.widen).add_(x))


class _Columns:
    """One pixel's column through the whole network."""

    def __init__(self, folded: Folded, z: Tensor | None, batch: int):
        size = folded.decoder.size
        self.first = _Causal(folded.first, folded.first_bias, batch, size)
        self.z_share = None if z is None else folded.z_share(z).permute(2, 3, 0, 1).contiguous()  # [H, W, B, C]
        codes = folded.decoder.layer_codes(z)
        self.codes = codes and [code[:, :, 0, 0] for code in codes]
        self.blocks = [_Block(weights, batch, size) for weights in folded.blocks]
        self.skips = [_Block(weights, batch, size) for weights in folded.skips]
        self.last, self.last_bias = folded.last[:, :, 0, 0].t(), folded.last_bias
        self.head = folded.logit[:, :, 0, 0].t()

    def see(self, pixels: Tensor, i: int, j: int) -> None:
        """Take in the pixel (i, j) of every image, [B]."""
        self.first.put(pixels.unsqueeze(1), i, j)

    def logit(self, i: int, j: int, draw: bool = True) -> Tensor | None:
        """Logits [B] of the pixel (i, j); with `draw` off only the caches are filled."""
        hidden = self.first.at(i, j)
        if self.z_share is not None:
            hidden = hidden + self.z_share[i, j]
        hidden = F.elu_(hidden)
        blocks, skips = ([partial(block, i=i, j=j) for block in stack] for stack in (self.blocks, self.skips))
        hidden = through_blocks(hidden, blocks, skips, self.codes)
        if not draw:
            return None
        hidden = F.elu_(torch.addmm(self.last_bias, hidden, self.last))
        return (hidden @ self.head)[:, 0]
