"""The registry of methods: each is a value made of an objective, an inference strategy and a model variant.

A name may carry changes: `+aggressive` fits q by Algorithm 1 (`free-bits+aggressive`), and `knob=value` sets a field of
the inference, the objective or the variant (`aggressive+clip=separate`, `bn-vae+scale=0.4`), or the optimiser, its rate
or the most epochs (`sa-vae+steps=5+max_epochs=15`). That is another method, with a folder of its own among the results.
"""

import math
from dataclasses import dataclass, field, fields, replace

from lagvae_lib.data import FAMILIES
from lagvae_lib.errors import BadValue
from lagvae_lib.inference import Inference
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.inference.semi_amortised import SemiAmortised
from lagvae_lib.names import choose, require
from lagvae_lib.objectives import Objective

POSTERIORS = ("gaussian", "batch-norm", "floor")
PRIORS = ("normal", "vamp", "flow")
DECODERS = ("standard", "skip", "dilated", "local")


@dataclass(frozen=True)
class Variant:
    """What is different in the model itself.

    posterior: the family of q(z|x): "gaussian"; "batch-norm", mu through BatchNorm of fixed `scale` (BN-VAE); "floor",
        variances that keep the KL above `delta` nats (delta-VAE).
    prior: "normal", N(0, I); "vamp", the mixture of q at `pseudo_inputs` trained images; "flow", the VLAE's.
    decoder: "standard"; "skip", z reaches every layer (Skip-VAE); "dilated", convolutions over words; "local", a
        PixelCNN that sees few rows.
    levels: 2 puts a second latent variable below the first (images).
    """

    posterior: str = "gaussian"
    scale: float = 0.6
    delta: float = 1.0
    prior: str = "normal"
    pseudo_inputs: int = 500
    decoder: str = "standard"
    levels: int = 1

    def __post_init__(self):
        choose(self.posterior, POSTERIORS, "posterior")
        choose(self.prior, PRIORS, "prior")
        choose(self.decoder, DECODERS, "decoder")
        if self.levels not in (1, 2):
            raise BadValue(f"levels must be 1 or 2, not {self.levels}")
        if self.levels == 2 and self.decoder != "standard":
            raise BadValue(f"a model of two levels has the decoder standard alone, not {self.decoder!r}")
        require(self, "scale delta", above=0)
        require(self, "pseudo_inputs", least=1)


@dataclass(frozen=True)
class Method:
    """name: what it is called everywhere. label, colour: in every table and figure. source: where it comes from.

    families: of data sets that it is made for. optimiser, lr, max_epochs: where it has its own, else the profile's.
    """

    name: str
    label: str = field(compare=False)
    source: str = field(compare=False)
    colour: str = field(compare=False)
    model: str = "vae"  # or "autoregressive"
    objective: Objective = Objective()
    inference: Inference = Amortised()
    variant: Variant = Variant()
    families: tuple[str, ...] = field(default=FAMILIES, compare=False)
    optimiser: str | None = None
    lr: float | None = None
    max_epochs: int | None = None


ANNEAL = Objective(start=0.1, anneal_epochs=10)
FREE = 4.0  # nats

METHODS = {
    method.name: method
    for method in (
        Method(
            "autoregressive", "LSTM-LM", "section 5.2; the decoder without z", colour="#000000", model="autoregressive"
        ),
        Method("vae", "VAE", "section 2; Kingma & Welling 2014", colour="#0173b2"),
        Method("vae-anneal", "VAE + anneal", "section 4.3; Bowman et al. 2016", colour="#56b4e9", objective=ANNEAL),
        *(
            Method(
                f"beta-{beta}",
                f"β-VAE (β = {beta})",
                "section 4.3; Higgins et al. 2017",
                colour,
                objective=Objective(beta, beta),
            )
            for beta, colour in ((0.2, "#6a2c70"), (0.4, "#9b4f96"), (0.6, "#cc78bc"), (0.8, "#e5b5dd"))
        ),
        Method("sa-vae", "SA-VAE", "section 5.2; Kim et al. 2018", colour="#029e73", inference=SemiAmortised()),
        Method(
            "sa-vae-anneal",
            "SA-VAE + anneal",
            "section 5.2; Kim et al. 2018",
            colour="#78d1b4",
            objective=ANNEAL,
            inference=SemiAmortised(),
        ),
        Method("aggressive", "Aggressive", "Algorithm 1", colour="#d55e00", inference=Aggressive()),
        Method(
            "aggressive-anneal",
            "Aggressive + anneal",
            "Algorithm 1",
            colour="#de8f05",
            objective=ANNEAL,
            inference=Aggressive(),
        ),
        Method(
            "cnn-vae",
            "CNN-VAE",
            "reference point of Table 1; Yang et al. 2017",
            colour="#949494",
            variant=Variant(decoder="dilated"),
            families=("toy", "text"),
            optimiser="adam",
            lr=1e-3,
        ),
        Method(
            "vlae",
            "VLAE",
            "reference point of Table 2; Chen et al. 2017",
            colour="#6e6e6e",
            variant=Variant(prior="flow", decoder="local"),
            families=("images",),
        ),
        Method(
            "vampprior",
            "VampPrior",
            "Tomczak & Welling 2018, one level, on the paper's decoder",
            colour="#b0b0b0",
            variant=Variant(prior="vamp"),
            families=("images",),
        ),
        Method(
            "vampprior-2level",
            "VampPrior, two levels",
            "reference point of Table 2; Tomczak & Welling 2018; KL, MI, AU of the upper level",
            colour="#8c8c8c",
            variant=Variant(prior="vamp", levels=2),
            families=("images",),
        ),
        Method("free-bits", "free bits", "Kingma et al. 2016", colour="#ca9161", objective=Objective(free_nats=FREE)),
        Method(
            "pretrain-free-bits",
            "pretrained + free bits",
            "Li et al. 2019",
            colour="#8c5a2b",
            objective=Objective(start=0.0, anneal_epochs=10, free_nats=FREE, pretrain_epochs=5),
        ),
        Method(
            "cyclical",
            "cyclical annealing",
            "Fu et al. 2019",
            colour="#4b2e83",
            objective=Objective(start=0.0, anneal_epochs=40, cycles=4),
        ),
        Method("bn-vae", "BN-VAE", "Zhu et al. 2020", colour="#cc3311", variant=Variant(posterior="batch-norm")),
        Method("delta-vae", "δ-VAE", "Razavi et al. 2019", colour="#bbaa00", variant=Variant(posterior="floor")),
        Method("skip-vae", "Skip-VAE", "Dieng et al. 2019", colour="#117733", variant=Variant(decoder="skip")),
    )
}


def for_family(family: str) -> tuple[str, ...]:
    """Names of the methods made for one of `data.FAMILIES`."""
    return tuple(name for name, method in METHODS.items() if family in method.families)


def label(name: str, family: str) -> str:
    """A method's name in tables and figures; the decoder without z is called after its network."""
    return "PixelCNN" if family == "images" and name == "autoregressive" else find(name).label


def knobs(method: str) -> set[str]:
    """Names of what a method's name sets (`aggressive+window=10`: `window`)."""
    return {change.partition("=")[0] for change in method.split("+")[1:]}


def colour(name: str) -> str:
    """The method's colour in every figure, changed knobs or not."""
    return METHODS[choose(name.split("+")[0], METHODS, "method")].colour


def find(name: str) -> Method:
    """The method called `name`, changes included. Raises `UnknownName` or ValueError with the valid ones."""
    base, *changes = name.split("+")
    method = METHODS[choose(base, METHODS, "method")]
    wanted: dict[str, dict] = {}  # set all at once, for a field may be valid with another alone
    for change in changes:
        if change == "aggressive":
            method = _aggressive(method)
        else:
            part, key, value = _parsed(method, change)
            wanted.setdefault(part, {})[key] = value
            note = f"{key.replace('_', ' ')} {change.partition('=')[2]}"
            method = replace(method, label=_noted(method.label, note))
    own = wanted.pop("", {})
    changed = {part: replace(getattr(method, part), **knobs) for part, knobs in wanted.items()}
    method = replace(method, name=name, **changed, **own)
    for part in changed:
        _check_effect(method, part, wanted[part])
    return method


# Knobs that mean something beside another alone
NEEDS = {
    "scale": "posterior=batch-norm",
    "delta": "posterior=floor",
    "pseudo_inputs": "prior=vamp",
    "start": "anneal_epochs",
    "ramp": "anneal_epochs",
}


def _check_effect(method: Method, part: str, wanted: dict) -> None:
    """Refuse a knob that would change a run's name and nothing else."""
    if method.model == "autoregressive" and part != "inference":
        raise BadValue(f"{method.name}: a model without z has no use for {', '.join(wanted)}")
    for knob in (knob for knob in NEEDS if knob in wanted):
        other, _, value = NEEDS[knob].partition("=")
        has = getattr(getattr(method, part), other)
        if not has or (value and has != value):
            raise BadValue(f"{method.name}: {knob} has no effect without {NEEDS[knob]}")
    idle = [knob for knob in ("window", "max_steps", "inner_test") if knob in wanted]
    if idle and "fixed_steps" in wanted:
        raise BadValue(f"{method.name}: fixed_steps leaves nothing to {', '.join(idle)}")


def _aggressive(method: Method) -> Method:
    if method.model == "autoregressive" or method.inference != Amortised():
        raise BadValue(f"+aggressive: {method.name} has no amortised inference network to fit by Algorithm 1")
    return replace(method, inference=Aggressive(), label=_noted(method.label, "aggressive"))


PARTS = ("inference", "objective", "variant")
OWN = {"optimiser": str, "lr": float, "max_epochs": int}


def _parsed(method: Method, change: str) -> tuple[str, str, object]:
    """Which part of the method has the field that a change sets ("" for the method's own), the field, its value."""
    owners = {knob.name: part for part in PARTS for knob in fields(getattr(method, part))}
    key, _, value = change.partition("=")
    choose(key, (*owners, *OWN), f"knob of {method.name}")
    kind = OWN.get(key) or _kind(getattr(method, owners[key]), key)
    try:
        parsed = kind(value)
    except ValueError:
        raise BadValue(f"{change!r} in the method's name: {value!r} is not a number") from None
    if kind is float and not math.isfinite(parsed):
        raise BadValue(f"{change!r} in the method's name: {value!r} is not a finite number")
    return "" if key in OWN else owners[key], key, parsed


def _kind(part: object, name: str) -> type:
    """What a knob's value is: str, float or int; by its annotation, as some are None by default."""
    annotation = next(str(getattr(knob.type, "__name__", knob.type)) for knob in fields(part) if knob.name == name)
    return str if "str" in annotation else float if "float" in annotation else int


def _check_names() -> None:
    """A knob must mean one thing: no two parts of a method, nor a part and the optimisation, may share a name."""
    for strategy in (Amortised, Aggressive, SemiAmortised):
        names = [knob.name for part in (strategy, Objective, Variant) for knob in fields(part)] + list(OWN)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TypeError(f"knobs of {strategy.__name__} that have two meanings: {', '.join(twice)}")


_check_names()


def _noted(label: str, note: str) -> str:
    """The label with a change in the parentheses at its end."""
    return f"{label[:-1]}, {note})" if label.endswith(")") else f"{label} ({note})"
