"""The numbers printed in the paper (He et al. 2019, Tables 1-4), to stand beside one's own.

Tables 1 and 2: means over 5 random restarts, sd in parentheses. NLL, KL and MI in nats per example.
Table 3: whole training time of the released script. Table 4: one run each, on Yelp.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lagvae_lib.names import choose

SOURCE = {"yahoo": "Table 1", "yelp": "Table 1", "omniglot": "Table 2"}
OTHER_VERSIONS = {"yelp-small": "yelp", "yahoo-small": "yahoo", "omniglot-28": "omniglot"}
_CELL = re.compile(r"(?P<bound>≤?)(?P<mean>\d+(\.\d+)?)( \((?P<sd>\d+(\.\d+)?)\))?")


@dataclass(frozen=True)
class Value:
    """A printed cell: `text` is what stands there; mean and sd are None where it is "-" or has no sd.

    bound: the paper gives the mean as an upper bound, from another publication.
    """

    text: str
    mean: float | None
    sd: float | None
    bound: bool

    @classmethod
    def parse(cls, text: str) -> "Value":
        """Inverse of `text`. Raises ValueError for anything that is not a cell of these tables."""
        if text == "-":
            return cls(text, None, None, False)
        found = _CELL.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not a table cell: expected '357.9 (0.1)', '≤359.1', '10.0' or '-'")
        sd = found["sd"]
        return cls(text, float(found["mean"]), None if sd is None else float(sd), bool(found["bound"]))


@dataclass(frozen=True)
class Row:
    """A row of Table 1 or 2, under the paper's own name for its method (`Method.label`)."""

    dataset: str
    method: str
    nll: Value
    kl: Value
    mi: Value
    au: Value


@dataclass(frozen=True)
class Time:
    """A cell of Table 3; `relative` is to VAE training, and mixes the cost of a step with the number of epochs."""

    relative: float
    hours: float


@dataclass(frozen=True)
class InnerSteps:
    """A row of Table 4: aggressive training on Yelp with a fixed number of inner steps."""

    nll: float
    kl: float
    mi: float
    au: int
    hours: float


@cache
def _printed() -> dict:
    return json.loads(files("lagvae_lib.paper").joinpath("published.json").read_text(encoding="utf-8"))


def counterpart(dataset: str) -> str | None:
    """The paper's data set that `dataset` is or is a small version of; None where the paper has none."""
    name = OTHER_VERSIONS.get(dataset, dataset)
    return name if name in SOURCE else None


def published(dataset: str, method: str) -> Row:
    """The paper's row for a method on one of its data sets (`yahoo`, `yelp`, `omniglot`). Raises `UnknownName`."""
    table = _printed()["main"][choose(dataset, SOURCE, "published data set")]
    cells = table[choose(method, table, f"method published on {dataset}")]
    return Row(dataset, method, *map(Value.parse, cells))


def methods(dataset: str) -> tuple[str, ...]:
    """The methods that the paper has on a data set, in the order of its table. Raises `UnknownName`."""
    return tuple(_printed()["main"][choose(dataset, SOURCE, "published data set")])


def timed(dataset: str) -> tuple[str, ...]:
    """The methods that Table 3 has on a data set. Raises `UnknownName`."""
    return tuple(_printed()["time"][choose(dataset, SOURCE, "published data set")])


def time(dataset: str, method: str) -> Time:
    """Table 3. Raises `UnknownName`."""
    table = _printed()["time"][choose(dataset, SOURCE, "published data set")]
    return Time(*table[choose(method, table, "method of Table 3")])


def inner_steps(steps: int | str) -> InnerSteps:
    """Table 4, for 10, 30, 50, 70 or "convergence". Raises `UnknownName`."""
    table = _printed()["inner_steps"]
    return InnerSteps(*table[choose(str(steps), table, "number of inner steps in Table 4")])
