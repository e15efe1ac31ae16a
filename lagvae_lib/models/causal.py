"""Convolutions over what comes before each pixel in raster order, and the gradient of the weights they do not have.

The released PixelCNN has whole kernels and sets what lies behind a pixel to zero before each pass. Autograd knows
nothing of that: those unused weights get gradients, which change nothing but the norm that clips all others. Here a
kernel has no such weights, and where the norm is to be the released code's, their gradient is formed beside the
weight's own (`unused_gradients`) and counted by `inference.gradients.clip`.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class CausalConv(nn.Conv2d):
    """A convolution over what comes before each pixel in raster order, and over the pixel itself unless `strict`.

    weight: [outputs, inputs, kernel // 2 + 1, kernel]. In its last row the pixels to the right (and with `strict` the
    pixel itself) are masked: exactly zero, with a gradient of exactly zero.
    count_unused: keep the gradient that a whole kernel's masked weights would have in `weight.unused.grad`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, strict: bool = False, count_unused: bool = False):
        if kernel % 2 == 0:
            raise ValueError(f"a kernel has an odd size, not {kernel}")
        super().__init__(inputs, outputs, (kernel // 2 + 1, kernel), bias=False)
        self.reach, self.count_unused = kernel // 2, count_unused
        mask = torch.ones(kernel // 2 + 1, kernel)
        mask[-1, self.reach + (not strict) :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def causal_weight(self) -> Tensor:
        """The weight with its mask."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        if self.count_unused and self.weight.requires_grad and torch.is_grad_enabled():
            return _Counted.apply(x, self.causal_weight(), self._unused(), self.mask)
        return causal(x, self.causal_weight())

    def _unused(self) -> Tensor:
        """Zeros in the shape of a whole kernel [outputs, inputs, kernel, kernel] that a gradient can be stored with."""
        unused = getattr(self.weight, "unused", None)
        if unused is None or unused.device != self.weight.device or unused.dtype != self.weight.dtype:
            outputs, inputs, _, kernel = self.weight.shape
            # one number, expanded: it is never added to anything, and only its gradient takes memory
            unused = self.weight.detach().new_zeros(()).expand(outputs, inputs, kernel, kernel).requires_grad_()
            self.weight.unused = unused
        return unused


def causal(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve x [B, inputs, H, W] with a causal kernel; rows above and columns beside the image are zero."""
    reach = weight.shape[3] // 2
    # A padded copy and not rows cut off the output: a slice is not dense, and BatchNorm's backward pass is then 4-9
    # times slower (the whole training step of the paper's shape 1.6 times).
    return F.conv2d(F.pad(x, (0, 0, reach, 0)), weight, bias, padding=(0, reach))


class _Counted(Function):
    """`causal`, with the whole kernel's gradient: the causal half for the weight, the rest for `unused`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, unused: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        return causal(x, weight)

    @staticmethod
    def backward(ctx, d_out: Tensor):
        x, weight, mask = ctx.saved_tensors
        x, low, rows = x.to(d_out.dtype), weight.to(d_out.dtype), weight.shape[2]
        d_x = _backward(d_out, F.pad(x, (0, 0, rows - 1, 0)), low, True) if ctx.needs_input_grad[0] else None
        below = (0, 0, 0, rows - 1)  # what a whole kernel has under the pixel's row
        d_whole = _backward(d_out, x, F.pad(low, below), False).to(weight.dtype)
        return d_x, d_whole[:, :, :rows].contiguous(), d_whole * (1 - F.pad(mask, below)), None


def _backward(d_out: Tensor, x: Tensor, weight: Tensor, of_input: bool) -> Tensor:
    """Gradient of a convolution of width-preserving padding, in its input (without the padded rows) or its weight."""
    reach = weight.shape[3] // 2
    square = weight.shape[2] == weight.shape[3]
    padding = [reach if square else 0, reach]
    mask = [of_input, not of_input, False]
    d_x, d_weight, _ = torch.ops.aten.convolution_backward(
        d_out, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, mask
    )
    return F.pad(d_x, (0, 0, -reach, 0)) if of_input else d_weight  # a copy and not a slice, see `causal`
