"""Sizes and lengths of a run: the paper's, and smaller ones of the same algorithm and protocol.

`paper` holds the paper's values; each departure of another profile stands beside the paper's value in a comment.
A run is data set x method x profile x seed; `resolve` makes the whole configuration of one.
"""

import os
from dataclasses import asdict, dataclass, field, replace

from lagvae_lib.config.methods import OWN, Method, find, for_family, knobs
from lagvae_lib.data import family
from lagvae_lib.errors import BadValue
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.lazy import torch
from lagvae_lib.names import choose
from lagvae_lib.schedule import Schedule

PROFILES = ("smoke", "quick", "scaled", "paper")
DEVICES = ("auto", "cpu", "cuda")
SEEDS = 1_000_000_000


@dataclass(frozen=True)
class DataSettings:
    """Documents cut at `max_len` words, the `vocab_size` most frequent words, and the splits' sizes; None: all."""

    max_len: int | None = None
    vocab_size: int | None = None
    train: int | None = None
    valid: int | None = None
    test: int | None = None
    batch_size: int = 32


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
        """Whether a second thread would cost more than it brings."""
        return self.hidden < 512


@dataclass(frozen=True)
class ImageModelSettings:
    """Sizes of the ResNet encoder (channels of its blocks, then of its last map) and of the PixelCNN decoder: kernel
    size of each layer from the image on, channels, and the maps that z becomes beside the image."""

    nz: int = 32
    encoder: int = 64
    last: int = 512
    kernels: tuple[int, ...] = (7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3)
    channels: int = 64
    latent_maps: int = 4

    @property
    def small(self) -> bool:
        """Whether a second thread would cost more than it brings."""
        return self.channels < 64


@dataclass(frozen=True)
class Evaluation:
    """iw_samples: samples of the final importance-weighted bound. observe_every: generator updates between two looks
    at the dynamics, on `probe` validation examples (the toy: `probe` points on the grid); after `observe_dense` looks
    only every fifth is taken. mi_draws: samples of z an example in the MI that ends the aggressive stage and that is
    reported (`metrics.evaluate.information`). iw_examples: the bound, or the exact NLL, is taken on so many test
    examples from all over the set; None: on all.
    """

    iw_samples: int = 500
    iw_examples: int | None = None
    observe_every: int = 0
    observe_dense: int = 50
    probe: int = 500
    mi_draws: int = 1


@dataclass(frozen=True)
class Profile:
    """All that depends on the size of the job and not on the method."""

    data: DataSettings
    model: ModelSettings | ImageModelSettings
    schedule: Schedule
    evaluation: Evaluation
    anneal_epochs: float = 10
    pretrain_epochs: int = 5
    pseudo_inputs: int = 500
    window: int = 15
    stop_reference: str = "previous"
    stop_patience: int = 1


TOY = Profile(
    DataSettings(batch_size=16),
    ModelSettings(nz=1, embedding=50, hidden=50),
    Schedule(max_epochs=50),
    Evaluation(observe_every=200),
)
TEXT = Profile(
    DataSettings(),
    ModelSettings(),
    Schedule(max_epochs=100, decay_from=15),
    Evaluation(observe_every=500),
)
IMAGES = Profile(
    DataSettings(batch_size=50),
    ImageModelSettings(),
    Schedule(optimiser="adam", lr=1e-3, max_epochs=1000, patience=20),
    Evaluation(observe_every=500),
    window=10,
    stop_reference="best",
    stop_patience=5,
)
SMALL_IMAGES = ImageModelSettings(encoder=8, last=32, kernels=(5, 3, 3, 3), channels=8)

TABLE = {
    "toy": {
        "paper": TOY,
        "smoke": replace(
            TOY,
            data=replace(TOY.data, train=320, valid=64, test=64),  # 16,000 / 4,000 / 4,000
            schedule=replace(TOY.schedule, max_epochs=2),  # 50
            evaluation=Evaluation(iw_samples=20, observe_every=20, probe=40),  # 500, 200, 500
            anneal_epochs=1,  # 10
            pretrain_epochs=1,  # 5
        ),
        "quick": replace(
            TOY,
            data=replace(TOY.data, train=4_000, valid=1_000, test=1_000),  # 16,000 / 4,000 / 4,000
            schedule=replace(TOY.schedule, max_epochs=8),  # 50
            evaluation=Evaluation(iw_samples=100, observe_every=100, probe=200),  # 500, 200, 500
            anneal_epochs=2,  # 10
        ),
    },
    "text": {
        "paper": TEXT,
        "smoke": replace(
            TEXT,
            data=DataSettings(max_len=12, vocab_size=200, train=160, valid=60, test=60),
            model=ModelSettings(nz=4, embedding=16, hidden=16),
            schedule=replace(TEXT.schedule, max_epochs=2),
            evaluation=Evaluation(iw_samples=20, observe_every=2, probe=60),
            anneal_epochs=1,
            pretrain_epochs=1,
        ),
        "quick": replace(
            TEXT,
            data=DataSettings(max_len=30, vocab_size=1000, train=1000, valid=200, test=200),
            model=ModelSettings(nz=32, embedding=32, hidden=64),
            schedule=replace(TEXT.schedule, max_epochs=20),
            evaluation=Evaluation(iw_samples=50, observe_every=5, probe=200, mi_draws=10),
            anneal_epochs=1,
            window=10,
        ),
        "scaled": replace(
            TEXT,
            # all words, all 20,000 / 97-word documents, 100,000 / 10,000 / 10,000 of them
            data=DataSettings(max_len=60, vocab_size=2000, train=6400, valid=1000, test=1000),
            model=ModelSettings(embedding=64, hidden=128),  # 512, 1024
            schedule=replace(TEXT.schedule, max_epochs=40, decay_from=10),  # 100, 15
            evaluation=Evaluation(iw_examples=400, observe_every=50, mi_draws=10),  # all 10,000 test documents, 500, 1
            anneal_epochs=2,  # 10: as many updates as 14% of one of the paper's epochs
            window=10,  # 15 released; 10 is almost surely what the published text results used
            stop_patience=2,  # 1; one bad epoch of a noisy MI does not end the stage
        ),
    },
    "images": {
        "paper": IMAGES,
        "smoke": replace(
            IMAGES,
            data=replace(IMAGES.data, batch_size=20, train=200, valid=60, test=60),
            model=SMALL_IMAGES,
            schedule=replace(IMAGES.schedule, max_epochs=2),
            evaluation=Evaluation(iw_samples=20, iw_examples=20, observe_every=4, probe=60),
            anneal_epochs=1,
            pretrain_epochs=1,
            pseudo_inputs=10,
        ),
        "quick": replace(
            IMAGES,
            data=replace(IMAGES.data, train=2000, valid=300, test=300),
            model=SMALL_IMAGES,
            # 1e-3, 1000 epochs: Adam moves a weight by its rate an update, and 300 of them must do
            schedule=replace(IMAGES.schedule, lr=1e-2, epoch_updates=10, max_epochs=30),
            evaluation=Evaluation(iw_samples=50, iw_examples=100, observe_every=10, probe=300, mi_draws=10),
        ),
        "scaled": replace(
            IMAGES,
            model=ImageModelSettings(encoder=16, last=128, kernels=(7, 5, 5, 3, 3), channels=16),  # 64, 512, 13, 64
            # An epoch is 50 updates (447), so that the aggressive stage, whose end is decided once an epoch, can be
            # short; 1000 epochs and a patience of 20 of the longer ones
            schedule=replace(IMAGES.schedule, epoch_updates=50, max_epochs=100, patience=8),
            evaluation=Evaluation(iw_examples=1000, observe_every=10, mi_draws=10),  # all 8,070 test images, 500, 1
            pseudo_inputs=100,  # 500
        ),
    },
}


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers. family: which kind of data the run is on, one of `data.FAMILIES`."""

    dataset: str
    method: Method
    profile: str
    seed: int
    data: DataSettings
    model: ModelSettings | ImageModelSettings
    schedule: Schedule
    evaluation: Evaluation
    family: str = field(default="", compare=False)

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


# Knobs of a variant that mean something for some families of data alone
MADE_FOR = {
    ("prior", "vamp"): ("images",),
    ("decoder", "local"): ("images",),
    ("decoder", "dilated"): ("toy", "text"),
    ("levels", 2): ("images",),
}


def default_profile(dataset: str) -> str:
    """What "auto" means: LAGVAE_PROFILE if set; `paper` with a GPU and for the toy, which fits anywhere; or `quick`."""
    forced = os.environ.get("LAGVAE_PROFILE")
    if forced:
        return choose(forced, PROFILES, "profile in LAGVAE_PROFILE")
    return "paper" if torch.cuda.is_available() or family(dataset) == "toy" else "quick"


def check_seed(seed: int) -> int:
    """`seed` itself. Raises BadValue for one that torch does not take, or that names no folder that a table reads."""
    if not 0 <= seed < SEEDS:
        raise BadValue(f"seeds must be 0 or more and below {SEEDS:,}, not {seed}")
    return seed


def choose_device(device: str) -> str:
    """`device` itself, or for "auto" the GPU if there is one. Raises BadValue for an unknown or absent device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    choose(device, DEVICES, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadValue("device 'cuda' is asked for, but torch finds no GPU here; valid here: auto, cpu")
    return device


def resolve(dataset: str, method: str, profile: str, seed: int, kind: str = "") -> Config:
    """The configuration of a run.

    kind: `Data.family`, where the data are loaded; without it, what the name or path says. Raises `UnknownName` for a
    method or profile that does not exist, and BadValue for a method that is not made for this kind of data.
    """
    choose(profile, PROFILES, "profile")
    check_seed(seed)
    kind = kind or family(dataset)
    table = TABLE[kind]
    choose(profile, table, f"profile of {dataset}")
    values = table[profile]
    found = _fit_method(find(method), values, explicit=knobs(method))
    if kind not in found.families:
        raise BadValue(
            f"method {found.name!r} is for {' and '.join(found.families)}, and {dataset!r} is {kind}; "
            f"valid here: {', '.join(for_family(kind))}"
        )
    for (knob, value), made_for in MADE_FOR.items():
        if getattr(found.variant, knob) == value and kind not in made_for:
            raise BadValue(
                f"method {found.name!r}: {knob} {value!r} is made for {' and '.join(made_for)}, not for {kind}"
            )
    own = {key: getattr(found, key) for key in OWN if getattr(found, key) is not None}
    schedule = replace(values.schedule, **own)
    return Config(dataset, found, profile, seed, values.data, values.model, schedule, values.evaluation, kind)


def _fit_method(method: Method, profile: Profile, explicit: set[str]) -> Method:
    """The profile's values of the knobs that depend on the size of the job, where the method has any use for them and
    its name does not set them itself."""
    objective, wanted = method.objective, {"objective": {}, "inference": {}, "variant": {}}
    for knob in ("anneal_epochs", "pretrain_epochs"):
        if getattr(objective, knob):
            wanted["objective"][knob] = getattr(profile, knob)
    if isinstance(method.inference, Aggressive):
        wanted["inference"] = {knob: getattr(profile, knob) for knob in ("window", "stop_reference", "stop_patience")}
    if method.variant.prior == "vamp":
        wanted["variant"]["pseudo_inputs"] = profile.pseudo_inputs
    for part, values in wanted.items():
        values = {knob: value for knob, value in values.items() if knob not in explicit}
        method = replace(method, **{part: replace(getattr(method, part), **values)})
    return method
