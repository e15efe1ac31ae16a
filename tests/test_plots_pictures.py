"""Rows of pictures show what they are given."""

import pytest
import torch

from lagvae_lib.plots import pictures


def test_each_picture_is_drawn_in_its_row_and_ink_is_black():
    given = {"a": torch.rand(3, 1, 4, 5), "b": torch.rand(2, 1, 4, 5)}
    figure = pictures.rows(given, cut=2)
    visible = [ax for ax in figure.axes if ax.get_visible()]
    shown = [ax.images[0] for ax in visible]
    assert len(shown) == 5
    for image, expected in zip(shown, torch.cat(list(given.values())), strict=True):
        assert (image.get_array() == expected[0].numpy()).all()
        assert image.get_cmap()(1.0)[:3] == (0.0, 0.0, 0.0)
    assert [ax.get_ylabel() for ax in visible if ax.get_ylabel()] == ["a", "b"]
    assert all(line.get_ydata()[0] == 1.5 for ax in visible for line in ax.lines)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        pictures.rows({})
