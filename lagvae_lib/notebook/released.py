"""Which trained model a notebook lets speak: released weights if they are here, else the notebook's own run."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data.loading import Data
from lagvae_lib.data.loading import load as load_data
from lagvae_lib.data.sources import MissingData
from lagvae_lib.notebook.parameters import Settings
from lagvae_lib.runs.record import Run, folder_of, load
from lagvae_lib.runs.train import run_named, trained_model

LONGEST = 60  # words decoded where a profile does not cut documents


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
        """n test sentences of one length [n, T], of `words` words or a little more where there are so many of them."""
        batches = sorted(self.data.test, key=lambda x: (len(x) < n, abs(x.shape[1] - words - 2)))
        return batches[0][:n]


def speaker(settings: Settings, data: Data, method: str) -> Speaker:
    """The `scaled` run of this method if the profile is `quick` and those weights are here; else the notebook's own.

    Where the notebook's own run was loaded from a record without weights, a `quick` run is trained in its place.
    """
    own = resolve(data.name, method, settings.profile, settings.seed)
    if settings.profile == "quick":
        released = replace(resolve(data.name, method, "scaled", 0), dataset=data.name)
        found = _with_weights(released, settings)
        if found:
            return found
    found = _with_weights(own, settings, data)
    if found:
        return found
    run_named(settings.dataset, method, "quick", settings.seed, settings.device, report=print)
    found = _with_weights(resolve(data.name, method, "quick", settings.seed), settings)
    if not found:
        raise FileNotFoundError(
            f"no weights for {method} under {folder_of(own).parent}; delete the record to train again"
        )
    return found


def _with_weights(config: Config, settings: Settings, data: Data | None = None) -> Speaker | None:
    """The run of `config`, if it is finished, its weights are here and its data are the ones to be had here."""
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


@torch.no_grad()
def score(speaker: Speaker, sentences: list[Tensor], z: Tensor | None) -> Tensor:
    """log p(words|z) of single sentences by the decoder's own `log_prob`, [n]; z [n, nz]."""
    decoder = speaker.model.decoder
    codes = [None] * len(sentences) if z is None else [row[None, None] for row in z]
    return torch.cat([decoder.log_prob(x[None], code)[:, 0] for x, code in zip(sentences, codes, strict=True)])
