"""What a run's numbers depend on beside the method: data, model, evaluation, and the defaults of a profile."""

from dataclasses import dataclass

from lagvae_lib.schedule import Schedule


@dataclass(frozen=True)
class DataSettings:
    """Documents cut at `max_len` words, the `vocab_size` most frequent words, and the splits' sizes; None: all.

    known_only: words beyond the vocabulary are left out instead of becoming `<unk>`.
    """

    max_len: int | None = None
    vocab_size: int | None = None
    train: int | None = None
    valid: int | None = None
    test: int | None = None
    batch_size: int = 32
    known_only: bool = False


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the LSTMs, of the word embeddings and of z; dropout on the decoder's words and outputs; the range of the
    first embeddings, and the first bias of the forget gates (`models.text.Start`)."""

    nz: int = 32
    embedding: int = 512
    hidden: int = 1024
    dropout: float = 0.5
    embedding_range: float = 0.1
    forget_bias: float = 0.0

    @property
    def small(self) -> bool:
        """Whether a second thread would cost more than it gains."""
        return self.hidden < 512


@dataclass(frozen=True)
class ImageModelSettings:
    """Sizes of the ResNet encoder (channels of its blocks, then of its last map) and of the PixelCNN decoder: kernel
    size of each layer from the image on, channels, and the number of feature maps that z is turned into.

    count_unused: whether the gradient of weights behind a kernel's mask, which move nothing, counts in the norm that is
        clipped (released: yes; on trained weights that norm is some 7 times the norm without).
    last_start: scale that the decoder's last hidden layer begins at, see `PixelCNNDecoder` (released: "torch").
    """

    nz: int = 32
    encoder: int = 64
    last: int = 512
    kernels: tuple[int, ...] = (7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3)
    channels: int = 64
    latent_maps: int = 4
    count_unused: bool = False
    last_start: str = "he"

    @property
    def small(self) -> bool:
        """Whether a second thread would cost more than it gains."""
        return self.channels < 64


@dataclass(frozen=True)
class Evaluation:
    """iw_samples: samples of the final importance-weighted bound. iw_examples: the bound, or the exact NLL, is taken on
    this many test examples spread over the set; None: on all. observe_every: decoder updates between two measurements
    of the dynamics, on `probe` validation examples (the toy: `probe` points on the grid); after `observe_dense` of them
    only every fifth is taken. mi_draws: samples of z per example in the MI that ends the aggressive stage and that is
    reported (`metrics.evaluate.information`).
    """

    iw_samples: int = 500
    iw_examples: int | None = None
    observe_every: int = 0
    observe_dense: int = 50
    probe: int = 500
    mi_draws: int = 1


@dataclass(frozen=True)
class Profile:
    """All that depends on the size of the job and not on the method.

    anneal_epochs is the length of one ramp, cycled_epochs that of all cycles together; ramp belongs to `Objective`;
    window, stop_reference, stop_patience and first_reference to `Aggressive`.
    """

    data: DataSettings
    model: ModelSettings | ImageModelSettings
    schedule: Schedule
    evaluation: Evaluation
    anneal_epochs: float = 10
    cycled_epochs: float = 40
    pretrain_epochs: int = 5
    pseudo_inputs: int = 500
    ramp: str = "batches"
    window: int = 15
    stop_reference: str = "previous"
    stop_patience: int = 1
    first_reference: float | None = None
