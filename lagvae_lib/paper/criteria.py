"""What a verdict rests on: criteria as data, each a set of quantities over seeds with the limits that they must keep.

Every criterion is judged by the one rule of `metrics.comparison`. It is met where the 95% interval over seeds of
each of its quantities lies between its limits, not met where one lies outside, and open otherwise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lagvae_lib.config.methods import label
from lagvae_lib.metrics.comparison import CONFIDENCE, Interval, interval, paired, relative_lag, seeds_to_decide
from lagvae_lib.paper.rows import AT_CAP, NO_RUN, converged, costs, hours, row_runs
from lagvae_lib.runs.record import Run, paired_by_seed

HOLDS, FAILS, OPEN, NOT_CONVERGED = "holds", "fails", "open", "not converged"
NOT_DISTINGUISHED = "not distinguished"
COLLAPSED = 0.1  # nats of KL, and of information, below which a code is called collapsed
LAGS = 0.5  # of the spread of the model's posterior means: who follows less than that lags
SPREADS = 0.1  # standard deviation of the model's posterior means, of a prior's 1
EARLY = (200, 1000)  # decoder updates
NAMES = {"nll": "NLL", "kl": "KL", "mi_large": "MI"}
FEW = 2  # more seeds that one seed needs at least, to have an interval of use


@dataclass(frozen=True)
class Condition:
    """One quantity over seeds and its limits. named: as it is shown. order: whether it compares two methods.

    runs: one list per method, what another seed costs.
    """

    named: str
    found: Interval
    low: float
    high: float
    runs: tuple[list[Run], ...]
    order: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the quantity keeps its limits; None where that is open."""
        return self.found.within(self.low, self.high)

    @property
    def may_pass(self) -> bool | None:
        """The same for a control, of which one seed outside the limits is enough not to pass."""
        one_outside = len(self.found.values) == 1 and not self.low < self.found.mean < self.high
        return False if one_outside else self.met

    def __str__(self) -> str:
        found, n = self.found, len(self.found.values)
        sign = "+" if self.order and not self.unit else ""
        spread = "" if n == 1 else f" ± {found.half_width:.2f}"
        mean = round(found.mean, 2) + 0.0  # no "-0.00"
        capped = AT_CAP * (not all(converged(run) for row in self.runs for run in row))
        return f"{self.named} {mean:{sign}.2f}{spread}{self.unit} ({n} seed{'s' * (n > 1)}{capped})"

    @property
    def more_seeds(self) -> float:
        """How many more would decide it at the mean and spread seen; infinite where more than 100."""
        n = len(self.found.values)
        if n == 1:
            return FEW
        needed = seeds_to_decide(self.found, self.low, self.high)
        return math.inf if needed is None else needed - n

    @property
    def hours_per_seed(self) -> float:
        """Hours of another seed of every method in it, by the runs on record, see `rows.hours`."""
        return sum(map(hours, self.runs))


@dataclass(frozen=True)
class Outcome:
    """What a criterion says of one method: what was measured, the verdict, and the conditions behind it.

    may_pass: whether a control passes; None where its runs cannot say.
    """

    measured: str
    verdict: str
    takes: str = ""
    conditions: tuple[Condition, ...] = ()
    may_pass: bool | None = None


UNPAIRED = Outcome("no seed in common", OPEN, f"{FEW + 1} seeds in common")


class Criterion(Protocol):
    """Judges one method by the runs on one data set."""

    def __call__(self, runs: Sequence[Run], method: str) -> Outcome: ...


def judged(conditions: Sequence[Condition], unconverged: Sequence[Run] = (), of: int = 0) -> Outcome:
    """All conditions together; unconverged: how many runs of how many prevent a verdict."""
    measured = "; ".join(map(str, conditions))
    if unconverged:
        capped, at_least = len(unconverged), sum(costs(run)["wall"] for run in unconverged) / 3600
        takes = f"{capped} of {of} runs to the schedule's end, more than {at_least:.1f} h"
        return Outcome(measured, NOT_CONVERGED, takes, tuple(conditions))
    met, passes = [c.met for c in conditions], [c.may_pass for c in conditions]
    verdict = FAILS if False in met else OPEN if None in met else HOLDS
    takes = _takes([c for c in conditions if c.met is None]) if verdict == OPEN else ""
    return Outcome(
        measured, verdict, takes, tuple(conditions), False if False in passes else None if None in passes else True
    )


def _takes(undecided: list[Condition]) -> str:
    """How many more seeds would decide all of these, and their hours."""
    seeds, price = max(c.more_seeds for c in undecided), max(c.hours_per_seed for c in undecided)
    if math.isinf(seeds):
        return "more than 100 seeds"
    least = " at least" * any(len(c.found.values) == 1 for c in undecided)
    return f"{seeds:.0f} more seed{'s' * (seeds > 1)}{least}, {seeds * price:.1f} h"


def missing(*rows: tuple[str, list[Run]]) -> Outcome | None:
    """What is said where a row has no run; None where every row has one."""
    lacking = [_named(method) for method, runs in rows if not runs]
    return Outcome(NO_RUN, NO_RUN, f"runs of {' and '.join(lacking)}") if lacking else None


def _named(method: str) -> str:
    """What a method is called where no run says on which kind of data it is."""
    return "the autoregressive model" if method == "autoregressive" else label(method, "text")


# -- the kinds of criterion --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collapse:
    """KL and MI (all examples) below `limit`, nats."""

    limit: float = COLLAPSED

    def __str__(self) -> str:
        return f"KL and MI below {self.limit:g} nats"

    def __call__(self, runs: Sequence[Run], method: str) -> Outcome:
        of = row_runs(runs, method)
        return missing((method, of)) or judged([_level(name, of, -math.inf, self.limit) for name in ("kl", "mi_large")])


@dataclass(frozen=True)
class Order:
    """`metric` of the method above that of `against` (sign 1) or below it (-1), seed by seed.

    least: what the method's own metric must exceed besides: hundredths of a nat are no code. margin: how far on the
    wrong side still counts, nats. confidence: of the interval of the difference.
    """

    metric: str
    against: str
    sign: int = 1
    least: float = -math.inf
    margin: float = 0.0
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        than = f"{NAMES[self.metric]} {'above' if self.sign > 0 else 'below'} that of {_named(self.against)}"
        margin = f", or at most {self.margin:g} nats beyond" if self.margin else ""
        return than + margin + (f", and above {self.least:g} nats" if self.least > -math.inf else "")

    def __call__(self, runs: Sequence[Run], method: str) -> Outcome:
        of, other = row_runs(runs, method), row_runs(runs, self.against)
        if said := missing((method, of), (self.against, other)):
            return said
        pairs = paired_by_seed(other, of)
        if not pairs:
            return UNPAIRED
        conditions = [self._difference(pairs)]
        if self.least > -math.inf:
            conditions.append(_level(self.metric, of, self.least, math.inf))
        used = [*of, *other]
        return judged(conditions, [r for r in used if not converged(r)] if self.metric == "nll" else (), len(used))

    def between(self, runs: Sequence[Run], method: str, control: str) -> Outcome:
        """The order of the method and its control: what an open control leaves to ask."""
        return replace(self, against=control, least=-math.inf, margin=0.0)(runs, method)

    def _difference(self, pairs: list[tuple[Run, Run]]) -> Condition:
        rows = tuple(map(list, zip(*pairs, strict=True)))
        found = paired(*([run.metrics[self.metric] for run in row] for row in rows), self.confidence)
        low, high = (-self.margin, math.inf) if self.sign > 0 else (-math.inf, self.margin)
        names = " - ".join(label(row[0].metrics["method"], row[0].family) for row in reversed(rows))
        return Condition(f"{NAMES[self.metric]}, {names}:", found, low, high, rows, order=True)


@dataclass(frozen=True)
class Cost:
    """The time of the whole training, `least` to `most` times that of VAE, seed by seed.

    Time is counted in the run's own plain updates, or, where it has none, in processor seconds: see `rows.costs`. Of a
    smaller budget an update is compared, in processor seconds, which decides nothing.
    """

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        limits = f"{self.least:g} to {self.most:g} times" if self.most < math.inf else f"{self.least:g} times or more"
        return f"training takes {limits} as long as that of VAE"

    def __call__(self, runs: Sequence[Run], method: str) -> Outcome:
        of, plain = row_runs(runs, method), row_runs(runs, "vae")
        if said := missing((method, of), ("vae", plain)):
            return said
        pairs = paired_by_seed(of, plain)
        if not pairs:
            return UNPAIRED
        ratio, what = (_ratio, "") if of[0].metrics["method"] == method else (_ratio_of_updates, ", per update")
        found, rows = interval([ratio(*pair) for pair in pairs]), tuple(map(list, zip(*pairs, strict=True)))
        named, unit = f"{label(of[0].metrics['method'], of[0].family)}{what}:", " times VAE's"
        if len(pairs) == 1 < len(plain):
            against = [ratio(pairs[0][0], run) for run in plain]
            unit += f", {min(against):.1f} to {max(against):.1f} by the seed of VAE"
        condition = Condition(named, found, self.least, self.most, rows, order=True, unit=unit)
        return judged([condition], [run for run in (*of, *plain) if not converged(run)], len(of) + len(plain))


def _ratio(run: Run, plain: Run) -> float:
    """What a training costs relative to that of VAE."""
    cost, base = costs(run), costs(plain)
    own_unit = cost["plain_updates"] / base["updates"]
    return cost["cpu"] / base["cpu"] if math.isnan(own_unit) else own_unit


def _ratio_of_updates(run: Run, plain: Run) -> float:
    """The same of a plain update, in processor seconds."""
    return costs(run)["step"] / costs(plain)["step"]


@dataclass(frozen=True)
class Lag:
    """The relative lag of the toy's posterior means, early and at the end (`late`), above or below `limit`.

    Early is its mean over the observations in `EARLY`. above: whether lagging is what is claimed; the model's means
    must then spread by more than `SPREADS` meanwhile, or there is nothing to follow. against: the method whose early
    lag must be larger besides, seed by seed.
    """

    above: bool = False
    late: bool = False
    against: str | None = None
    limit: float = LAGS

    def __str__(self) -> str:
        when = f"updates {EARLY[0]} to {EARLY[1]:,}" + ", and at the end," * self.late
        than = f"; early, below that of {_named(self.against)}" if self.against else ""
        spread = f", while the model's means spread by more than {SPREADS:g}" * self.above
        return f"relative lag, {when} {'above' if self.above else 'below'} {self.limit:g}{spread}{than}"

    def __call__(self, runs: Sequence[Run], method: str) -> Outcome:
        of = row_runs(runs, method)
        other = row_runs(runs, self.against) if self.against else of
        if said := missing((method, of), (self.against or method, other)):
            return said
        conditions = list(self._levels(of))
        if self.against in (None, method):  # a control cannot be below itself, and must not fail for that reason alone
            return judged(conditions)
        pairs = paired_by_seed(other, of)
        if not pairs:
            return UNPAIRED
        rows = tuple(map(list, zip(*pairs, strict=True)))
        lags = ([lag_of(run, early) for run in row] for row in rows)
        named = f"early, less that of {_named(self.against)}:"
        return judged([*conditions, Condition(named, paired(*lags), -math.inf, 0.0, rows, order=True)])

    def _levels(self, of: list[Run]) -> Iterator[Condition]:
        limits = (self.limit, math.inf) if self.above else (-math.inf, self.limit)
        name = label(of[0].metrics["method"], "toy")
        yield Condition(f"relative lag of {name}, early", interval([lag_of(run, early) for run in of]), *limits, (of,))
        if self.above:
            spread = interval([spread_of(run, early) for run in of])
            yield Condition("sd of the model's means", spread, SPREADS, math.inf, (of,))
        if self.late:
            yield Condition("at the end", interval([lag_of(run, last) for run in of]), *limits, (of,))


def early(iteration: np.ndarray) -> np.ndarray:
    """Which observations are early ones."""
    return (iteration >= EARLY[0]) & (iteration <= EARLY[1])


def last(iteration: np.ndarray) -> np.ndarray:
    """Which observation is the last."""
    return iteration == iteration[-1]


def lag_of(run: Run, when: Callable) -> float:
    """Mean relative lag of a toy run over the observations that `when` chooses."""
    points = run.points
    chosen = when(points["iteration"])
    return float(relative_lag(points["model_mean"][chosen], points["inference_mean"][chosen]).mean())


def spread_of(run: Run, when: Callable) -> float:
    """Mean standard deviation of the model's posterior means, over the same observations."""
    return float(run.points["model_mean"][when(run.points["iteration"])].astype(float).std(-1).mean())


def _level(metric: str, of: list[Run], low: float, high: float) -> Condition:
    found = interval([run.metrics[metric] for run in of])
    return Condition(f"{NAMES[metric]} of {label(of[0].metrics['method'], of[0].family)}", found, low, high, (of,))
