"""Named data sets: what each is called and which kind it is. Names cost no PyTorch; `data.loading` loads the data."""

from pathlib import Path

from lagvae_lib.names import choose

FAMILIES = ("toy", "text", "images")
TEXT_SETS = ("yelp", "yahoo", "yelp-small", "yahoo-small", "grammar")
IMAGE_SETS = ("omniglot", "omniglot-28", "glyphs")
NAMES = ("synthetic", *TEXT_SETS, *IMAGE_SETS)
ARRAYS = (".npy", ".npz", ".pt")  # suffixes of files that hold images
# What these names mean outside profile `paper`
SMALL = {"yelp": "yelp-small", "yahoo": "yahoo-small", "omniglot": "omniglot-28"}


def is_file(dataset: str) -> bool:
    """Whether a data set's name is a path to the user's own file: it has a separator or a suffix."""
    return dataset not in NAMES and ("/" in dataset or "\\" in dataset or bool(Path(dataset).suffix))


def family(dataset: str) -> str:
    """Which kind of data a name or a path means, one of `FAMILIES`: a folder or an array file holds images."""
    if dataset == "synthetic":
        return "toy"
    images = dataset in IMAGE_SETS or (is_file(dataset) and (Path(dataset).suffix in ARRAYS or Path(dataset).is_dir()))
    return "images" if images else "text"


def resolve_name(dataset: str, profile: str) -> str:
    """The data set that a name means at a profile: unless it is `paper`, some names are those of `SMALL`.

    Raises `UnknownName` for anything that is neither a data set nor a path.
    """
    if is_file(dataset):
        return dataset
    choose(dataset, NAMES, "data set (or path to a text file, a folder of PNGs or an array file)")
    return dataset if profile == "paper" else SMALL.get(dataset, dataset)
