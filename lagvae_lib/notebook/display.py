"""What a notebook displays that is no figure: the banner about data and profile, and tables of sentences."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape

import pandas as pd

from lagvae_lib.config.profiles import TABLE
from lagvae_lib.data import family
from lagvae_lib.data.loading import Data
from lagvae_lib.notebook.parameters import Settings

STAND_IN = {
    "text": "artificial sentences, because the real text could not be had here",
    "images": "letters of a font, warped at random, because the real drawings could not be had here",
}
SAYS = {
    "smoke": "Everything runs, nothing is learned: no number below says anything about a method.",
    "quick": (
        "A first look: training on a small part of the data that stops long before convergence. It can show how "
        "Algorithm 1 runs, what its inner loop costs and how everything is measured. It cannot show which method is "
        "better, nor where any of them would end."
    ),
    "scaled": "The paper's algorithm and protocol with a smaller model on less data: compare methods with each other, "
    "not their values with the paper's.",
    "paper": "The paper's configuration.",
}


class Html(str):
    """Text of HTML that a notebook renders."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<Html of {len(self)} characters>"


def banner(settings: Settings, data: Data) -> Html:
    """What this notebook is really run on: data set, its size, stand-in or not, profile, each departure from the paper.

    The departures are computed from the profiles' table, where `paper` holds the paper's values.
    """
    asked = "" if data.name == settings.dataset else f" (asked for: <code>{escape(settings.dataset)}</code>)"
    kind = f"<b>A stand-in: {STAND_IN[family(settings.dataset)]}.</b> " if data.stand_in else ""
    changed = departures(settings.dataset, settings.profile)
    if data.stand_in:  # its sentences and its vocabulary are what they are, and not cut
        changed = changed[~changed["setting"].isin([TITLES["data.max_len"], TITLES["data.vocab_size"]])]
    rows = "".join(f"<tr><td>{k}</td><td>{h}</td><td>{p}</td></tr>" for k, h, p in changed.itertuples(index=False))
    table = (
        f"<table><thead><tr><th>setting</th><th>here</th><th>the paper</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No setting departs from the paper's.</p>"
    )
    return Html(
        f"<p><b>Data:</b> {kind}<code>{escape(data.name)}</code>{asked}. {_sizes(data)}. "
        f"Source: {escape(data.source)}. {escape('; '.join(data.notes))}.</p>"
        f"<p><b>Profile <code>{settings.profile}</code>:</b> {SAYS[settings.profile]}</p>{table}"
    )


def _sizes(data: Data) -> str:
    splits = (("train", data.train), ("validation", data.valid), ("test", data.test))
    items = "images" if data.vocab is None else "documents"
    sizes = ", ".join(f"{name} {split.examples:,} {items}" for name, split in splits)
    if data.vocab is None:
        return f"{sizes}; {' × '.join(map(str, data.test.shape))} pixels, black or white"
    words = f"{data.test.predicted_tokens / data.test.examples:.1f} words to predict in each of test"
    return f"{sizes}; {words}; vocabulary {len(data.vocab):,}"


TITLES = {
    "data.max_len": "words of a document, at most",
    "data.vocab_size": "vocabulary, at most",
    "data.train": "training examples, at most",
    "data.valid": "validation examples, at most",
    "data.test": "test examples, at most",
    "data.batch_size": "batch",
    "model.nz": "dimensions of z",
    "model.embedding": "word embedding",
    "model.hidden": "LSTM",
    "model.dropout": "dropout",
    "model.embedding_range": "range of the first embeddings",
    "model.forget_bias": "first bias of the forget gates",
    "model.encoder": "channels of the encoder's blocks",
    "model.last": "channels of the encoder's last map",
    "model.kernels": "kernels of the decoder, from the image on",
    "model.channels": "channels of the decoder",
    "model.latent_maps": "maps that z becomes",
    "schedule.lr": "learning rate",
    "schedule.epoch_updates": "updates of an epoch",
    "schedule.max_epochs": "epochs, at most",
    "schedule.patience": "bad epochs before the rate is halved",
    "schedule.decay_from": "epoch from which the rate may be halved",
    "evaluation.iw_samples": "samples of the NLL bound",
    "evaluation.iw_examples": "test examples of the NLL bound",
    "evaluation.mi_draws": "draws of z an example in MI",
    "anneal_epochs": "epochs of annealing, where the method anneals",
    "ramp": "what an epoch of annealing counts",
    "pretrain_epochs": "epochs of pretraining, where the method pretrains",
    "pseudo_inputs": "pseudo-inputs of the VampPrior",
    "window": "window of the inner loop's test of convergence",
    "stop_patience": "epochs of falling mutual information that end the aggressive stage",
}
OWN = ("evaluation.observe_every", "evaluation.observe_dense", "evaluation.probe")  # the paper names none of these


def departures(dataset: str, profile: str) -> pd.DataFrame:
    """Each setting in which a profile departs from the paper: columns setting, here, paper."""
    here, paper = (_flat(asdict(TABLE[family(dataset)][name])) for name in (profile, "paper"))
    rows = [
        (TITLES.get(name, name), _value(name, here[name]), _value(name, paper[name]))
        for name in here
        if here[name] != paper[name] and name not in OWN
    ]
    return pd.DataFrame(rows, columns=["setting", "here", "paper"])


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _value(name: str, value) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if value is None:
        return "a whole pass" if name == "schedule.epoch_updates" else "no limit"
    return f"{value:,}" if isinstance(value, int) else str(value)


def shorten(text: str, words: int) -> str:
    """The first `words` words, with an ellipsis where that is not all. Other people's texts are quoted, not copied."""
    parts = text.split()
    return text if len(parts) <= words else " ".join(parts[:words]) + " …"


def sentences(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table of texts, everything escaped: `<unk>` is no tag, and a pair of $ no formula."""
    head = "".join(f"<th style='text-align:left'>{escape(h)}</th>" for h in headers)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell) or '(no word)'}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return Html(f"<table class='tex2jax_ignore'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
