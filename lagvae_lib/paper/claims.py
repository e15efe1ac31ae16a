"""The paper's claims, one by one, and what the records say of each: numbers first, then one word.

A claim of an order between two methods holds, or fails, where the difference of their means is more than two standard
errors from 0 (over seeds, sd^2/n added up); otherwise it is open. With two or three seeds that is a rough rule, and
with one it cannot be applied: the claim is open, and the numbers stand beside it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from lagvae_lib.config.methods import label
from lagvae_lib.data import resolve_name
from lagvae_lib.paper import plan
from lagvae_lib.paper.rows import DATASETS, NO_RUN, costs, moments, row_runs
from lagvae_lib.runs.record import Records, Run

HOLDS, FAILS, OPEN = "holds", "fails", "open"
COLLAPSED = 0.1  # nats of KL, and of information, below which a code is called collapsed
RULE = (
    "An order of two methods holds or fails where their means differ by more than two standard errors over seeds, and "
    f"is open otherwise, as it is with one seed. Information is kept only if it is above {COLLAPSED} nats, however "
    "small the standard error. Cost and collapse are judged by the limits named."
)
TEXT = ("yahoo", "yelp")


@dataclass(frozen=True)
class Finding:
    """What the records of one data set say of a claim; verdict: holds, fails, open, or no run."""

    claim: str
    data: str
    measured: str
    verdict: str


def findings(records: Records) -> list[Finding]:
    """Every claim on every data set that it is about, in the order of the paper's argument."""
    return list(_all(records))


def as_frame(found: list[Finding]) -> pd.DataFrame:
    """Columns claim, data, measured, verdict; a claim is named in its first line alone."""
    frame = pd.DataFrame([vars(finding) for finding in found])
    frame["claim"] = frame["claim"].where(~frame["claim"].duplicated(), "")
    return frame


def _all(records: Records) -> Iterator[Finding]:
    yield from _toy(records.toy())
    profile = records.profile
    recorded = {name: records.of(resolve_name(name, profile)) for name in DATASETS}

    def each(claim: str, check: Callable[[list[Run]], tuple[str, str]], names=tuple(DATASETS)) -> Iterator[Finding]:
        for name in names:
            yield Finding(claim, resolve_name(name, profile), *check(recorded[name]))

    yield from each(f"Plain training collapses on text (KL and MI below {COLLAPSED})", _collapsed("vae"), TEXT)
    yield from each("Annealing does not prevent it", _collapsed("vae-anneal"), TEXT)
    yield from each("Aggressive keeps information that VAE loses (MI, all examples)", _keeps("aggressive", "vae"))
    yield from each("the same with annealing", _keeps("aggressive-anneal", "vae-anneal"))
    yield from each("Aggressive predicts better than VAE (NLL)", _order("nll", "vae", "aggressive"))
    yield from each("the same with annealing (NLL)", _order("nll", "vae-anneal", "aggressive-anneal"))
    yield from each(
        "Aggressive + anneal predicts better than the autoregressive model (NLL)",
        _order("nll", "autoregressive", "aggressive-anneal"),
    )
    yield from each("A β of .2 keeps a larger KL than VAE", _order("kl", "beta-0.2", "vae"))
    yield from each("and predicts worse (NLL)", _order("nll", "beta-0.2", "vae"))
    yield from each(
        "Aggressive + anneal predicts as well as SA-VAE + anneal or better (NLL)",
        _order("nll", "sa-vae-anneal", "aggressive-anneal"),
    )
    yield from each("Aggressive costs 2 to 4 times the training of VAE", _cost("aggressive", 2, 4))
    yield from each("SA-VAE costs 9 times or more", _cost("sa-vae", 9, math.inf))
    inner = plan.table_4(profile)
    yield from each("30 inner steps keep more information than 10", _keeps(inner["30"], inner["10"]), ("yelp",))


# -- kinds of check: runs of one data set -> what was measured, verdict ------------------------------------------------


def _collapsed(method: str) -> Callable[[list[Run]], tuple[str, str]]:
    def check(runs: list[Run]) -> tuple[str, str]:
        of = row_runs(runs, method)
        if not of:
            return NO_RUN, NO_RUN
        kl, mi = (max(run.metrics[name] for run in of) for name in ("kl", "mi_large"))
        held = kl < COLLAPSED and mi < COLLAPSED
        return f"largest KL {kl:.3f}, largest MI {round(mi, 3) + 0.0:.3f} of {_seeds(of)}", HOLDS if held else FAILS

    return check


def _order(metric: str, larger: str, smaller: str) -> Callable[[list[Run]], tuple[str, str]]:
    """Whether `metric` of the method `larger` is above that of `smaller`."""

    def check(runs: list[Run]) -> tuple[str, str]:
        pair = [row_runs(runs, method) for method in (larger, smaller)]
        if not all(pair):
            return NO_RUN, NO_RUN
        values = [pd.Series([run.metrics[metric] for run in of], dtype=float) for of in pair]
        difference = values[0].mean() - values[1].mean()
        named = " against ".join(
            f"{_label(of)} {round(value.mean(), 2) + 0.0:.2f} ({_seeds(of)})"
            for of, value in zip(pair, values, strict=True)
        )
        if min(map(len, values)) < 2:
            return f"{named}: {difference:+.2f}, one seed", OPEN
        error = math.sqrt(sum(value.var() / len(value) for value in values))
        verdict = OPEN if abs(difference) <= 2 * error else HOLDS if difference > 0 else FAILS
        return f"{named}: {difference:+.2f}, standard error {error:.2f}", verdict

    return check


def _keeps(larger: str, smaller: str) -> Callable[[list[Run]], tuple[str, str]]:
    """Whether `larger` ends with more information than `smaller`, and with a code: hundredths of a nat are none."""
    order = _order("mi_large", larger, smaller)

    def check(runs: list[Run]) -> tuple[str, str]:
        measured, verdict = order(runs)
        if verdict == HOLDS and moments("mi_large", row_runs(runs, larger))["mean"] < COLLAPSED:
            return f"{measured}; below {COLLAPSED} nats is no code", FAILS
        return measured, verdict

    return check


def _cost(method: str, least: float, most: float) -> Callable[[list[Run]], tuple[str, str]]:
    """Whether training costs between `least` and `most` times the VAE's, in the run's own plain updates.

    Of a smaller budget only the processor seconds of an update can be compared, and only from below: it holds or is
    open.
    """

    def check(runs: list[Run]) -> tuple[str, str]:
        of, plain = row_runs(runs, method), row_runs(runs, "vae")
        if not of or not plain:
            return NO_RUN, NO_RUN
        whole, mean = of[0].metrics["method"] == method, lambda runs: pd.DataFrame([costs(run) for run in runs]).mean()
        if whole:
            ratio, what = mean(of)["plain_updates"] / mean(plain)["updates"], "training takes"
        else:
            ratio, what = mean(of)["step"] / mean(plain)["step"], "an update takes"
        unit = "times as many plain updates' time" if whole else "times the processor seconds"
        text = f"{_label(of)}: {what} {ratio:.1f} {unit} ({_seeds(of)} against {_seeds(plain)})"
        if whole:
            return text, HOLDS if least <= round(ratio, 1) <= most else FAILS
        return text, HOLDS if ratio >= least else OPEN

    return check


def _label(runs: list[Run]) -> str:
    return label(runs[0].metrics["method"], runs[0].family)


def _seeds(runs: list[Run]) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


# -- the toy -----------------------------------------------------------------------------------------------------------


def _toy(runs: list[Run]) -> Iterator[Finding]:
    """The lag can be measured on the toy alone, where the true posterior is known on a grid."""
    plain, ours = (row_runs(runs, method) for method in ("vae", "aggressive"))
    claims = (
        "Early in training the inference network lags behind the true posterior",
        "Aggressive training closes the lag (to less than half of its largest)",
        "and keeps the code that plain training loses (MI, all examples)",
    )
    if not plain or not ours:
        yield from (Finding(claim, "synthetic", NO_RUN, NO_RUN) for claim in claims)
        return
    largest = [min(run.dynamics["lag"].max() for run in of) for of in (plain, ours)]
    measured = f"largest KL(q || p(z|x)), least of the seeds: VAE {largest[0]:.2f}, Aggressive {largest[1]:.2f} nats"
    yield Finding(claims[0], "synthetic", measured, HOLDS if min(largest) > COLLAPSED else FAILS)
    shares = [run.dynamics["lag"].iloc[-1] / run.dynamics["lag"].max() for run in ours]
    ended = max(run.dynamics["lag"].iloc[-1] for run in ours)
    measured = f"Aggressive ends at {ended:.2f} nats or less, {max(shares):.0%} of its largest or less ({_seeds(ours)})"
    yield Finding(claims[1], "synthetic", measured, HOLDS if max(shares) < 0.5 else FAILS)
    yield Finding(claims[2], "synthetic", *_keeps("aggressive", "vae")(runs))
