"""Which trained model a notebook samples from: released weights if they are here, else the notebook's own run."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lagvae_lib.config.methods import label
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data import resolve_name
from lagvae_lib.data.loading import Data
from lagvae_lib.data.loading import load as load_data
from lagvae_lib.data.sources import MissingData
from lagvae_lib.notebook.display import trained
from lagvae_lib.notebook.parameters import Settings
from lagvae_lib.runs.record import Run, folder_of, load
from lagvae_lib.runs.speak import LONGEST, speak
from lagvae_lib.runs.train import NoWeights, trained_model


@dataclass(frozen=True)
class Speaker:
    """A trained model in evaluation mode with its data. max_tokens: the longest sentence it was trained on."""

    model: nn.Module
    data: Data
    run: Run
    max_tokens: int

    @property
    def note(self) -> str:
        """Whose sentences these are."""
        metrics = self.run.metrics
        return (
            f"{metrics['method']}, profile {metrics['profile']}, seed {metrics['seed']}, on {metrics['dataset']}: "
            f"KL {metrics['kl']:.3f}, MI {metrics['mi_large']:.3f} nats (all examples), AU {metrics['au']}"
        )

    def examples(self, n: int = 4, words: int = 10) -> Tensor:
        """n test examples, or all where there are fewer: images, or sentences of one length [n, T].

        Sentences have `words` words or nearly so where there are n of one length; else longer ones are cut to the
        length of the shortest that is needed.
        """
        if self.data.family == "images":
            return torch.cat([x[:n] for x in self.data.test])[:n]
        batches = sorted(self.data.test, key=lambda x: (len(x) < n, abs(x.shape[1] - words - 2)))
        return batches[0][:n] if len(batches[0]) >= n else _cut_alike(batches, n)


def _cut_alike(batches: list[Tensor], n: int) -> Tensor:
    """The n longest sentences [n, T], each cut to the words of the shortest of them and ended by </s>."""
    rows = sorted((row for x in batches for row in x), key=len)[-n:]
    length = len(rows[0])
    cut = torch.stack([torch.cat([row[: length - 1], row[-1:]]) for row in rows])
    if any(len(row) > length for row in rows):
        print(f"{len(rows)} test documents, cut to {length - 2} words: there are not {n} of one length")
    return cut


def at_hand(settings: Settings) -> Settings:
    """The settings themselves where their data are here; else a live profile's, whose data are never missing.

    Records can be shown without the data that they were made on, but nothing can be encoded or scored.
    """
    name = resolve_name(settings.dataset, settings.profile)
    config = resolve(name, settings.methods[0], settings.profile, settings.seed)
    try:
        load_data(settings.dataset, config.data, profile=settings.profile)
    except MissingData:
        return settings.live()
    return settings


def speaker(settings: Settings, data: Data, method: str) -> Speaker:
    """The notebook's own run of this method, or the released `scaled` one, which to `quick` is the better of the two.

    Where neither has weights here, it is trained: `quick` in place of the profiles that take hours, and otherwise side
    by side with the notebook's other methods, which will be wanted too.
    """
    own = resolve(data.name, method, settings.profile, settings.seed, kind=data.family)
    choice = [(own, data), (resolve(data.name, method, "scaled", 0, kind=data.family), None)]
    choice = {"smoke": choice[:1], "quick": choice[::-1]}.get(settings.profile, choice)
    for config, its_data in choice:
        if found := _with_weights(config, settings, its_data):
            return found
    live = settings.live()
    trained(live, dict.fromkeys([*(settings.methods if live == settings else ()), method]))
    found = _with_weights(resolve(data.name, method, live.profile, live.seed, kind=data.family), live)
    if not found:
        raise FileNotFoundError(
            f"no weights for {method} under {folder_of(own).parent}; delete the record to train again"
        )
    return found


def _with_weights(config: Config, settings: Settings, data: Data | None = None) -> Speaker | None:
    """The run of `config`, if it is finished, its weights are here and its data are those available here."""
    folder = folder_of(config)
    if not all((folder / name).exists() for name in ("metrics.json", "weights.safetensors")):
        return None
    try:
        data = data or load_data(settings.dataset, config.data, profile=config.profile)
    except MissingData:
        return None
    run = load(folder)
    if run.metrics["provenance"]["data_sha256"] != data.sha256:
        return None
    return Speaker(trained_model(config, data), data, run, (config.data.max_len or LONGEST) + 1)


def sentences_from_prior(dataset: str, methods: Iterable[str], sentences: int = 4) -> dict[str, list[str]]:
    """By label, what the recorded `scaled` models of seed 0 write, each sentence from its own z; without those whose
    weights or words are not here."""
    spoken = {}
    for method in methods:
        with suppress(NoWeights):
            spoken[label(method, "text")] = speak(resolve(dataset, method, "scaled", 0, kind="text"), sentences)
    return spoken


@torch.no_grad()
def score(speaker: Speaker, sentences: list[Tensor], z: Tensor | None) -> Tensor:
    """log p(words|z) of single sentences by the decoder's own `log_prob`, [n]; z [n, nz]."""
    decoder = speaker.model.decoder
    codes = [None] * len(sentences) if z is None else [row[None, None] for row in z]
    return torch.cat([decoder.log_prob(x[None], code)[:, 0] for x, code in zip(sentences, codes, strict=True)])
