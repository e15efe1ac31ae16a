"""Data such as people have: sentences, drawings, and what is said of them."""

import random

import numpy as np


def lines(n, seed=0):
    rng = random.Random(seed)
    words = [["a guest", "my sister", "the cook"], ["liked", "forgot", "ordered"], ["the soup", "a chair", "some tea"]]
    return [" ".join(rng.choice(part) for part in words) + f" {i % 7} times in week {i // 7 % 9}" for i in range(n)]


def write(path, rows, end="\n"):
    path.write_text("".join(row + end for row in rows), encoding="utf-8")
    return str(path)


def warnings(notes):
    return [note for note in notes if note.startswith("warning: ")]


def drawings(n, size=28, seed=0):
    """Lines on paper, uint8 [n, size, size], all different."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, size, size), np.uint8)
    for i, image in enumerate(images):
        image[rng.integers(2, size - 2), 2 : 4 + i % (size - 6)] = 255
        image[3 : 5 + i // 5 % (size - 8), rng.integers(2, size - 2)] = 200
        image[i % size, i // size] = 90
    return images
