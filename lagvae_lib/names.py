"""Looking a name up among the valid ones, with an error that helps."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

from lagvae_lib.errors import BadValue


class UnknownName(BadValue):
    """A name that is not among the valid ones; the message lists them and the nearest match."""


def choose(name: str, valid: Iterable[str], what: str, listed: Iterable[str] | None = None) -> str:
    """Return `name` if it is one of `valid`, else raise `UnknownName`.

    what: what the name names, in the singular ("method"); it is used in the message. listed: the valid names that the
    message lists, where that is not all of them.
    """
    valid = list(valid)
    if name in valid:
        return name
    near = get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UnknownName(f"unknown {what} {name!r}{hint} Valid: {', '.join(valid if listed is None else listed)}")


def require(
    owner: object,
    names: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
):
    """Check fields of a value (names with spaces between) against a range; None passes.

    Raises BadValue, which says the range, for what lies outside it or is not a number (`whole`: not a whole one).
    """
    for name in names.split():
        value = getattr(owner, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral if whole else Real)):
            raise BadValue(f"{name} must be a {'whole ' * whole}number, not {value!r}")
        # in this form a nan is refused too
        inside = value is None or (
            (least is None or value >= least) and (above is None or value > above) and (below is None or value < below)
        )
        if not inside:
            limits = (("at least", least), ("above", above), ("below", below))
            valid = " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)
            raise BadValue(f"{name} must be {valid}, not {value}")
