"""What a notebook displays besides figures: the banner, tables of sentences, training in short, what was seen."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape

import pandas as pd

from lagvae_lib.config.methods import find, label
from lagvae_lib.config.profiles import resolve, values_for
from lagvae_lib.data import family, resolve_name
from lagvae_lib.data.loading import Data, load
from lagvae_lib.data.sources import MissingData
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.notebook.parameters import Settings
from lagvae_lib.notebook.side_by_side import Board
from lagvae_lib.notebook.side_by_side import train as side_by_side
from lagvae_lib.runs.record import Run

STAND_IN = {
    "text": "artificial sentences, because the real text is not available here",
    "images": "letters of a font, warped at random, because the real drawings are not available here",
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

LEFT = "align='left' style='text-align:left'"  # the attribute too, because some readers drop styles


class Html(str):
    """Text of HTML that a notebook renders."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<Html of {len(self)} characters>"


def banner(settings: Settings, data: Data | None = None) -> Html:
    """What this notebook is really run on: data set, its size, stand-in or not, profile, each departure from the paper.

    data: by default those of the settings; records can be shown where these are missing. The departures are computed
    from the profiles' table, where `paper` holds the paper's values.
    """
    data = data or _of(settings)
    if data is None:
        name = resolve_name(settings.dataset, settings.profile)
        return Html(
            f"<p><b>Data:</b> <code>{escape(name)}</code>, not at hand: only what is on record can be shown.</p>"
            f"<p><b>Profile <code>{settings.profile}</code>:</b> {SAYS[settings.profile]}</p>"
        )
    asked = "" if data.name == settings.dataset else f" (asked for: <code>{escape(settings.dataset)}</code>)"
    kind = f"<b>A stand-in: {STAND_IN[family(settings.dataset)]}.</b> " if data.stand_in else ""
    changed = departures(data.name, settings.profile, data.family)
    if data.stand_in:  # its sentences and its vocabulary are what they are, and not cut
        changed = changed[~changed["setting"].isin([TITLES["data.max_len"], TITLES["data.vocab_size"]])]
    rows = "".join(
        f"<tr><td {LEFT}>{k}</td><td>{h}</td><td>{p}</td></tr>" for k, h, p in changed.itertuples(index=False)
    )
    table = (
        f"<table><thead><tr><th {LEFT}>setting</th><th>here</th><th>the paper</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p>No setting departs from the paper's.</p>"
    )
    notes = "".join(
        f"<li>{escape(note[:1].upper() + note[1:])}.</li>" for note in (f"source: {data.source}", *data.notes)
    )
    return Html(
        f"<p><b>Data:</b> {kind}<code>{escape(data.name)}</code>{asked}. {_sizes(data)}.</p>"
        f"<p><b>Profile <code>{settings.profile}</code>:</b> {SAYS[settings.profile]}</p>"
        f"<details><summary>Where the data come from, and every departure from the paper</summary><ul>{notes}</ul>"
        f"{table}</details>"
    )


def _of(settings: Settings) -> Data | None:
    """The data that the settings mean; None where they can't be had."""
    method = (*settings.methods, settings.values.get("method"))[0]
    name = resolve_name(settings.dataset, settings.profile)
    try:
        config = resolve(name, method, settings.profile, settings.seed)
        return load(settings.dataset, config.data, profile=settings.profile)
    except MissingData:
        return None


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
    "data.known_only": "words beyond the vocabulary are left out",
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
    "model.count_unused": "masked weights count in the clipped norm",
    "model.last_start": "first weights of the decoder's last hidden layer",
    "schedule.lr": "learning rate",
    "schedule.epoch_updates": "updates of an epoch",
    "schedule.max_epochs": "epochs, at most",
    "schedule.patience": "bad epochs before the rate is halved",
    "schedule.decay_from": "epoch from which the rate may be halved",
    "schedule.reference": "a bad epoch's validation loss is not below",
    "schedule.decay_in_ramp": "the rate may be halved while annealing",
    "evaluation.iw_samples": "samples of the NLL bound",
    "evaluation.iw_examples": "test examples of the NLL bound",
    "evaluation.mi_draws": "draws of z an example in MI",
    "anneal_epochs": "epochs of annealing, where the method anneals",
    "ramp": "what an epoch of annealing counts",
    "pretrain_epochs": "epochs of pretraining, where the method pretrains",
    "pseudo_inputs": "pseudo-inputs of the VampPrior",
    "window": "window of the inner loop's test of convergence",
    "first_reference": "MI that the aggressive stage's first epoch is compared with",
    "stop_patience": "epochs of falling mutual information that end the aggressive stage",
}
# The paper names none of these
OWN = ("evaluation.observe_every", "evaluation.observe_dense", "evaluation.probe", "cycled_epochs")


WORDS = {
    ("schedule.epoch_updates", None): "a whole pass",
    ("first_reference", None): "nothing",
    ("schedule.reference", "best"): "the run's best",
    ("schedule.reference", "decay"): "the best since the last halving",
    ("model.last_start", "torch"): "PyTorch's own",
    ("model.last_start", "he"): "He et al. 2015",
}


def departures(dataset: str, profile: str, kind: str = "") -> pd.DataFrame:
    """Each setting in which a profile departs from the paper: columns setting, here, paper.

    kind: see `config.profiles.resolve`.
    """
    here, paper = (_flat(asdict(values_for(dataset, name, kind or family(dataset)))) for name in (profile, "paper"))
    rows = [
        (TITLES[name], _value(name, here[name]), _value(name, paper[name]))
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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, str):
        return WORDS.get((name, value), value or "no limit")
    return f"{value:,}" if isinstance(value, int) else str(value)


def shorten(text: str, words: int) -> str:
    """The first `words` words, with an ellipsis where that is not all. Other people's texts are quoted, not copied."""
    parts = text.split()
    return text if len(parts) <= words else " ".join(parts[:words]) + " …"


def sentences(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table of texts, everything escaped: `<unk>` is not taken for a tag, nor a pair of $ for a formula."""
    head = "".join(f"<th {LEFT}>{escape(h)}</th>" for h in headers)
    body = "".join(
        "<tr>" + "".join(f"<td {LEFT}>{escape(cell) or '(no word)'}</td>" for cell in row) + "</tr>" for row in rows
    )
    return Html(f"<table class='tex2jax_ignore'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def table(frame: pd.DataFrame, caption: str = "", index: bool = True) -> Html:
    """A data frame as it stands, no cell cut, with a caption below; text is on the left."""
    with pd.option_context("display.max_colwidth", None):
        html = frame.to_html(index=index, justify="left", border=0, na_rep="-")
    return Html(html + (f"<p>{escape(caption)}</p>" if caption else ""))


def saw(*sentences: str) -> Html:
    """What a notebook has shown: a sentence per line, whose numbers are formatted from records and not typed."""
    rounded = (re.sub(r"-(0\.0+)(?!\d)", r"\1", sentence) for sentence in sentences)  # no "-0.00"
    return Html("<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in rounded) + "</ul>")


# -- training ----------------------------------------------------------------------------------------------------------


def trained(settings: Settings, methods: Iterable[str] | None = None, seed: int | None = None) -> dict[str, Run]:
    """{method: run} of one seed, loaded or trained; what must be trained is trained side by side, one process per core.

    While that goes on there is one line per run; in the end there is one folded table per run.
    """
    from IPython.display import display  # part of the notebook tools, which the library does without

    methods, seed = list(methods or settings.methods), settings.seed if seed is None else seed
    board = Board(methods)
    shown = board.shown = display(board, display_id=True)
    missing = [method for method in methods if not settings.recorded(method, seed)]
    missing.sort(key=lambda method: not isinstance(find(method).inference, Aggressive))  # the longest first
    if len(missing) > 1 and settings.profile != "smoke":  # whose runs take less time than starting a process
        side_by_side([settings.job(method, seed) for method in missing], board)
    runs = {}
    for method in methods:
        runs[method] = settings.run(method, seed, report=lambda line, method=method: board.update(method, line))
    summary = Html("".join(training(run) for run in runs.values()))
    shown.update(summary) if shown else print(summary)
    return runs


ROWS = 6  # epochs shown of a run


def training(run: Run) -> Html:
    """How a run trained: one line on the whole, and some of its epochs, folded."""
    history, metrics = run.history, run.metrics
    stage = history["aggressive"].astype(bool)
    steps = f", {stage.sum()} of them aggressive with {history['inner_steps'][stage].mean():.0f} inner steps"
    whole = f"{len(history)} epochs{steps if stage.any() else ''}, {sum(metrics['seconds'].values()) / 60:.1f} minutes"
    finished = metrics.get("provenance", {}).get("finished", "")[:10]
    name = f"{label(metrics['method'], run.family)}, seed {metrics['seed']}, profile {metrics['profile']}"
    head = f"<summary><b>{escape(name)}</b>: {whole} (finished {finished})</summary>"
    return Html(f"<details>{head}{_epochs(history).to_html(index=False, border=0)}</details>")


EPOCH = {
    "epoch": "epoch",
    "iteration": "decoder updates",
    "valid_loss": "-ELBO",
    "valid_kl": "KL",
    "valid_mi": "MI",
    "valid_mi_large": "MI, all examples",
    "valid_au": "AU",
    "lr": "learning rate",
}


def _epochs(history: pd.DataFrame) -> pd.DataFrame:
    """The first epoch, the last, and some between, with the stage of each."""
    at = sorted({round(i * (len(history) - 1) / max(1, ROWS - 1)) for i in range(ROWS)})
    rows = history.iloc[at].reindex(columns=EPOCH).rename(columns=EPOCH).round(3).replace(-0.0, 0.0)
    stage = history["aggressive"].astype(bool).iloc[at]
    return rows.assign(stage=["aggressive" if on else "plain" for on in stage])
