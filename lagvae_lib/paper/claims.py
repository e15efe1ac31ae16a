"""The paper's claims, one by one: criterion, control, and what the records say of each.

A control is a method for which a claim's criterion must not be met. Where it is met all the same, the claim says
nothing about the method that it names, and reads "not distinguished".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from lagvae_lib.config.methods import label
from lagvae_lib.data import resolve_name
from lagvae_lib.metrics.comparison import CONFIDENCE
from lagvae_lib.paper import plan
from lagvae_lib.paper.criteria import (
    COLLAPSED,
    FAILS,
    HOLDS,
    NOT_CONVERGED,
    NOT_DISTINGUISHED,
    OPEN,
    Collapse,
    Cost,
    Criterion,
    Lag,
    Order,
    Outcome,
)
from lagvae_lib.paper.rows import AT_CAP, DATASETS, EARLIER, NO_RUN
from lagvae_lib.runs.record import Records, Run

RULE = (
    "One rule for every verdict. Differences and ratios are paired by seed. A verdict is given where the 95% interval "
    "of the mean over seeds, by Student's t, lies clear of the limit (0 for a difference); numbers are mean ± half of "
    "that interval. It is open otherwise, as it is with one seed or without a seed in common. Not converged: the "
    "criterion is one of NLL or cost, and a run ended at its cap on epochs or had a smaller budget "
    f"({AT_CAP}). No run: none is on record, but perhaps under earlier settings ({EARLIER}). Not distinguished: the "
    "control meets the criterion too, or does better than the method; where the control is open itself, method and "
    "control are compared with each other. The last column says what would decide an open verdict, if mean and spread "
    "stayed as they are: seeds, and processor hours by the runs on record."
)
TEXT = ("yahoo", "yelp")
TOY = "synthetic"
AS_WELL = 0.5  # nats of NLL that still count as predicting as well


@dataclass(frozen=True)
class Claim:
    """text: what is claimed. method: of whom. criterion: what must be met; control: the method that must not meet it.

    names: of the data sets, as in `rows.DATASETS`, or the toy.
    """

    text: str
    method: str
    criterion: Criterion
    control: str
    names: tuple[str, ...] = tuple(DATASETS)


@dataclass(frozen=True)
class Finding:
    """What the records of one data set say of a claim.

    verdict: holds, fails, open, not converged, not distinguished, or no run. takes: what would decide it. orders: how
    many differences and ratios were judged by their intervals.
    """

    claim: str
    data: str
    measured: str
    control: str
    verdict: str
    takes: str = ""
    orders: int = 0


def claims(profile: str) -> list[Claim]:
    """Every claim, in the order of the paper's argument."""
    return [*_of_the_lag(), *_of_information(), *_of_likelihood(), *_of_cost(), _of_inner_steps(profile)]


def _of_the_lag() -> Iterator[Claim]:
    """On the toy alone, where the true posterior is known on a grid."""
    text = "Early in training the inference network of VAE lags behind the true posterior"
    yield Claim(text, "vae", Lag(above=True), "aggressive", (TOY,))
    yield Claim("Aggressive training closes the lag", "aggressive", Lag(late=True, against="vae"), "vae", (TOY,))
    yield Claim("and keeps the code that VAE loses", "aggressive", _keeps("vae"), "vae-anneal", (TOY,))


def _of_information() -> Iterator[Claim]:
    yield Claim("Plain training collapses on text", "vae", Collapse(), "aggressive-anneal", TEXT)
    yield Claim("Annealing does not prevent it", "vae-anneal", Collapse(), "aggressive-anneal", TEXT)
    yield Claim("Aggressive keeps more information than VAE", "aggressive", _keeps("vae"), "vae-anneal")
    yield Claim("the same with annealing", "aggressive-anneal", _keeps("vae-anneal"), "vae")
    yield Claim("A β of .2 keeps a larger KL than VAE", "beta-0.2", Order("kl", "vae"), "vae-anneal")


def _of_likelihood() -> Iterator[Claim]:
    both, plain = "aggressive-anneal", "vae-anneal"
    yield Claim("Aggressive predicts better than VAE", "aggressive", _better("vae"), plain)
    yield Claim("the same with annealing, NLL", both, _better(plain), "vae")
    text = "Aggressive + anneal predicts better than the autoregressive model"
    yield Claim(text, both, _better("autoregressive"), plain)
    text = "Aggressive + anneal predicts as well as SA-VAE + anneal or better"
    yield Claim(text, both, _better("sa-vae-anneal", AS_WELL), plain)
    yield Claim("A β of .2 predicts worse than VAE", "beta-0.2", Order("nll", "vae"), plain)


def _of_cost() -> Iterator[Claim]:
    yield Claim("Aggressive costs 2 to 4 times the training of VAE", "aggressive", Cost(2, 4), "vae-anneal")
    yield Claim("SA-VAE costs 9 times the training of VAE or more", "sa-vae", Cost(9), "aggressive")


def _of_inner_steps(profile: str) -> Claim:
    inner = plan.table_4(profile)
    return Claim(
        "30 inner steps keep more information than 10", inner["30"], _keeps(inner["10"]), "vae-anneal", ("yelp",)
    )


def _keeps(against: str) -> Order:
    return Order("mi_large", against, least=COLLAPSED)


def _better(against: str, margin: float = 0.0) -> Order:
    return Order("nll", against, sign=-1, margin=margin)


# -- judging them ------------------------------------------------------------------------------------------------------


def findings(records: Records, of: list[Claim] | None = None) -> list[Finding]:
    """Every claim on every data set that it is about, by the runs of today's settings; of: other claims than the
    paper's."""
    return [
        judge(claim, data, [run for run in (records.toy() if data == TOY else records.of(data)) if not run.earlier])
        for claim in (claims(records.profile) if of is None else of)
        for data in (name if name == TOY else resolve_name(name, records.profile) for name in claim.names)
    ]


def judge(claim: Claim, data: str, runs: list[Run]) -> Finding:
    """A claim on one data set: its method by its criterion, then its control by the same."""
    found, control = (claim.criterion(runs, method) for method in (claim.method, claim.control))
    verdict, takes = found.verdict, found.takes
    if verdict == HOLDS:
        verdict, takes = _with_control(claim, runs, control)
    counted = found.verdict not in (NO_RUN, NOT_CONVERGED)
    orders = sum(c.order and len(c.found.values) > 1 for c in found.conditions) if counted else 0
    return Finding(claim.text, data, found.measured, control.measured, verdict, takes, orders)


def _with_control(claim: Claim, runs: list[Run], control: Outcome) -> tuple[str, str]:
    """Verdict, and what it takes, on a method that meets its criterion.

    That a difference is established and the control's is not says nothing of the two methods yet: where the control of
    an order is open, method and control are compared with each other.
    """
    if control.may_pass is False:
        return HOLDS, ""
    if control.may_pass:
        return NOT_DISTINGUISHED, ""
    if control.verdict == OPEN and isinstance(claim.criterion, Order):
        control = claim.criterion.between(runs, claim.method, claim.control)
        if control.verdict in (HOLDS, FAILS):
            return HOLDS if control.verdict == HOLDS else NOT_DISTINGUISHED, ""
    return NOT_CONVERGED if control.verdict == NOT_CONVERGED else OPEN, f"of the control: {control.takes}"


# -- showing them ------------------------------------------------------------------------------------------------------


def as_frame(found: list[Finding]) -> pd.DataFrame:
    """One line per finding, for reading; a claim is named in its first line alone."""
    frame = pd.DataFrame([vars(finding) for finding in found]).drop(columns="orders")
    frame = frame.rename(columns={"takes": "what would decide it"})
    frame["claim"] = frame["claim"].where(~frame["claim"].duplicated(), "")
    return frame


def criteria_frame(profile: str) -> pd.DataFrame:
    """Columns claim, criterion, control."""
    rows = [(claim.text, str(claim.criterion), label(claim.control, "text")) for claim in claims(profile)]
    return pd.DataFrame(rows, columns=["claim", "criterion", "control"])


def expected_by_chance(found: list[Finding]) -> str:
    """How many orders were judged, and how many of their verdicts would be false if no two methods differed."""
    orders = sum(finding.orders for finding in found)
    return (
        f"{orders} differences and ratios were judged by their intervals. If none of the differences were real, about "
        f"{orders * (1 - CONFIDENCE):.1f} of them would be decided by chance."
    )
