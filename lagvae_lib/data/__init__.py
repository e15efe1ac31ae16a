"""Named data sets and files: what each is called and which kind it is. This costs no PyTorch; `data.loading` loads."""

from pathlib import Path

from lagvae_lib.errors import BadValue
from lagvae_lib.names import choose
from lagvae_lib.paths import absolute

FAMILIES = ("toy", "text", "images")
TEXT_SETS = ("yelp", "yahoo", "yelp-small", "yahoo-small", "grammar")
IMAGE_SETS = ("omniglot", "omniglot-28", "glyphs")
NAMES = ("synthetic", *TEXT_SETS, *IMAGE_SETS)
ARRAYS = (".npy", ".npz", ".pt", ".pth")  # suffixes of files that hold images
IDX = b"\0\0\x08\x03"  # how MNIST's own files of images begin
MAGIC = (IDX, b"\x93NUMPY", b"\x89PNG", b"\xff\xd8\xff")
# What these names mean outside profile `paper`
SMALL = {"yelp": "yelp-small", "yahoo": "yahoo-small", "omniglot": "omniglot-28"}


def split_label_column(dataset: str) -> tuple[str, str | None]:
    """A path and the label column that follows it (`reviews.tsv+label_column=1`), or None."""
    path, mark, column = dataset.rpartition("+label_column=")
    return (path, column) if path and mark else (dataset, None)


def with_label_column(dataset: str, column: str | None) -> str:
    """The inverse: `dataset` with its label column named, as every command and notebook takes it."""
    if column is None:
        return dataset
    if not is_file(dataset):
        raise BadValue(f"a label column is one of a file of your own; {dataset!r} is a data set whose labels are known")
    return f"{dataset}+label_column={column}"


def absolute_dataset(dataset: str) -> str:
    """A path to the user's own data named from the root, for a process that runs elsewhere; a name as it is."""
    path, column = split_label_column(dataset)
    return with_label_column(str(absolute(path)), column) if is_file(dataset) else dataset


def is_file(dataset: str) -> bool:
    """Whether a data set's name is a path to the user's own: it has a separator or a suffix, or such a file exists."""
    path = split_label_column(dataset)[0]
    if path in NAMES or not path or "\0" in path:
        return False
    return "/" in path or "\\" in path or bool(Path(path).suffix) or _exists(path)


def _exists(path: str) -> bool:
    try:
        return absolute(path).exists()
    except (OSError, BadValue):  # longer than a name may be, or the ~ of nobody
        return False


def family(dataset: str) -> str:
    """Which kind of data a name or a path means, one of `FAMILIES`: a folder or a file of arrays holds images.

    Data that are loaded say it themselves (`Data.family`), whatever they are called.
    """
    if dataset == "synthetic":
        return "toy"
    if not is_file(dataset):
        return "images" if dataset in IMAGE_SETS else "text"
    path = Path(split_label_column(dataset)[0])
    return "images" if path.suffix.lower() in ARRAYS or _holds_images(path) else "text"


def _holds_images(path: Path) -> bool:
    """Whether a path without a telling suffix is a folder, or begins as files of images do."""
    try:
        path = absolute(path)
        if path.is_dir() or path.suffix.lower() == ".gz":
            return path.is_dir() or "idx" in path.name
        if not path.is_file():  # what is read from a pipe is gone
            return False
        with open(path, "rb") as f:
            return f.read(8).startswith(MAGIC)
    except (OSError, BadValue):
        return False


def resolve_name(dataset: str, profile: str) -> str:
    """The data set that a name means at a profile: unless it is `paper`, some names are those of `SMALL`.

    Raises `UnknownName` for anything that is neither a data set nor a path.
    """
    if is_file(dataset):
        return dataset
    choose(dataset, NAMES, "data set (or path to a text file, a folder of PNGs or an array file)")
    return dataset if profile == "paper" else SMALL.get(dataset, dataset)
