"""The registry of methods: each is a value made of an objective, an inference strategy and a model variant.

A name may carry changed knobs of its inference, as `aggressive+clip=separate` or `aggressive-anneal+fixed_steps=30`:
that is another method, with a folder of its own among the results.
"""

from dataclasses import dataclass, fields, replace

from lagvae_lib.inference import Inference
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.names import choose
from lagvae_lib.objectives import Objective


@dataclass(frozen=True)
class Method:
    """name: what it is called everywhere. label: its row in the paper's tables. source: where it comes from."""

    name: str
    label: str
    source: str
    model: str = "vae"  # or "autoregressive"
    objective: Objective = Objective()
    inference: Inference = Amortised()


ANNEAL = Objective(start=0.1, anneal_epochs=10)

METHODS = {
    method.name: method
    for method in (
        Method("autoregressive", "LSTM-LM", "section 5.2; the decoder without z", model="autoregressive"),
        Method("vae", "VAE", "section 2; Kingma & Welling 2014"),
        Method("vae-anneal", "VAE + anneal", "section 4.3; Bowman et al. 2016", objective=ANNEAL),
        *(
            Method(
                f"beta-{beta}",
                f"β-VAE (β = {beta})",
                "section 4.3; Higgins et al. 2017",
                objective=Objective(beta, beta),
            )
            for beta in (0.2, 0.4, 0.6, 0.8)
        ),
        Method("aggressive", "Ours", "Algorithm 1", inference=Aggressive()),
        Method("aggressive-anneal", "Ours + anneal", "Algorithm 1", objective=ANNEAL, inference=Aggressive()),
    )
}


def find(name: str) -> Method:
    """The method called `name`, changed knobs included. Raises `UnknownName` or ValueError with the valid ones."""
    base, *changes = name.split("+")
    method = METHODS[choose(base, METHODS, "method")]
    for change in changes:
        method = _change(method, change)
    return replace(method, name=name)


def _change(method: Method, change: str) -> Method:
    knobs = {field.name: field.type for field in fields(method.inference)}
    key, _, value = change.partition("=")
    choose(key, knobs, f"knob of {method.name}")
    kind = type(getattr(method.inference, key))
    try:
        # `fixed_steps` is None by default: a number in any case
        parsed = value if kind is str else float(value) if kind is float else int(value)
    except ValueError:
        raise ValueError(f"{change!r} in the method's name: {value!r} is not a number") from None
    label = f"{method.label} ({key} {value})"
    return replace(method, inference=replace(method.inference, **{key: parsed}), label=label)
