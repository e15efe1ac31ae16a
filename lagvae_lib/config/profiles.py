"""Sizes and lengths of a run: the paper's, and smaller ones with the same algorithm and protocol.

`paper` holds the paper's values; each departure of another profile stands beside the paper's value in a comment.
A run is data set x method x profile x seed; `resolve` makes the whole configuration of one.
"""

from dataclasses import asdict, dataclass, field, replace

from lagvae_lib.config.machine import check_seed
from lagvae_lib.config.methods import OWN, Method, find, for_family, knobs
from lagvae_lib.config.settings import DataSettings, Evaluation, ImageModelSettings, ModelSettings, Profile
from lagvae_lib.data import family
from lagvae_lib.errors import BadValue
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS
from lagvae_lib.schedule import Schedule

STAGE = ("window", "stop_reference", "stop_patience", "first_reference")  # of `Aggressive`, set by the profile
PROFILES = ("smoke", "quick", "scaled", "paper")


# As in the released code, whose rules these are: after a decay the loss that caused it is the reference, the rate may
# fall while the KL weight climbs, and the first epoch's MI is compared with a number
TOY = Profile(
    DataSettings(batch_size=16),
    ModelSettings(nz=1, embedding=50, hidden=50),
    Schedule(max_epochs=50, reference="decay", decay_in_ramp=True),
    Evaluation(observe_every=200),
    ramp="examples",
    first_reference=-1.0,
)
# One departure is left. The released code takes the index -1 for padding, by which it means no word and torch the
# vocabulary's last one: that word's embedding is never trained there. Here it is; 30 steps move it by 2e-4.
TEXT = Profile(
    DataSettings(),
    ModelSettings(),
    Schedule(max_epochs=100, decay_from=15, reference="decay", decay_in_ramp=True),
    Evaluation(observe_every=500),
    ramp="examples",
    first_reference=0.0,
)
IMAGES = Profile(
    DataSettings(batch_size=50),
    ImageModelSettings(count_unused=True, last_start="torch"),
    Schedule(optimiser="adam", lr=1e-3, max_epochs=1000, patience=20, reference="decay", decay_in_ramp=True),
    Evaluation(observe_every=500),
    window=10,
    stop_reference="best",
    stop_patience=5,
    first_reference=0.0,
)


def small_text(hidden: int, embedding: int = 64, nz: int = 8) -> ModelSettings:
    """A text model smaller than the paper's, by the scaling rule that the small profiles share.

    Kept are the length of a word's vector at the start (its range grows as 1 / sqrt(embedding)), so that z does not
    drown the words that it stands beside, and how far back the first states remember: forget gates open at sigmoid(2)
    let 25 words pass as the paper's long training lets 97. z shrinks with the embedding, from 32 to 8 rather than to 4.
    """
    paper = TEXT.model
    embedding_range = round(paper.embedding_range * (paper.embedding / embedding) ** 0.5, 3)
    return ModelSettings(nz, embedding, hidden, embedding_range=embedding_range, forget_bias=2.0)


SMALL_IMAGES = replace(IMAGES.model, encoder=8, last=32, kernels=(5, 3, 3, 3), channels=8)

TABLE = {
    "toy": {
        "paper": TOY,
        "smoke": replace(
            TOY,
            data=replace(TOY.data, train=320, valid=64, test=64),  # 16,000 / 4,000 / 4,000
            schedule=replace(TOY.schedule, max_epochs=2),  # 50
            evaluation=Evaluation(iw_samples=20, observe_every=20, probe=40),  # 500, 200, 500
            anneal_epochs=1,  # 10
            cycled_epochs=1,  # 40
            pretrain_epochs=1,  # 5
        ),
        "quick": replace(
            TOY,
            data=replace(TOY.data, train=4_000, valid=1_000, test=1_000),  # 16,000 / 4,000 / 4,000
            schedule=replace(TOY.schedule, max_epochs=8),  # 50
            evaluation=Evaluation(iw_samples=100, observe_every=100, probe=200),  # 500, 200, 500
            anneal_epochs=2,  # 10
            cycled_epochs=4,  # 40
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
            cycled_epochs=1,
            pretrain_epochs=1,
        ),
        # Trained before the reader's eyes in a few minutes, and the effect is visible: how it was found, and what each
        # departure does, stands in results/README.md. It ends at its last epoch, long before convergence.
        "quick": replace(
            TEXT,
            # all words, all 20,000 / 97-word documents, 100,000 / 10,000 / 10,000 of them
            data=DataSettings(max_len=25, vocab_size=800, train=8000, valid=1000, test=1000),
            model=small_text(hidden=64),  # 1024
            # An epoch is 35 updates (about 3,100), so that the stage, whose end is decided once an epoch, can be short.
            # 1.0, 15, 100: an update of the paper's length is too long for so small a model, and loses the code again
            schedule=replace(TEXT.schedule, lr=0.3, epoch_updates=35, decay_from=34, max_epochs=47),
            evaluation=Evaluation(
                iw_samples=100, iw_examples=300, observe_every=25, mi_draws=10
            ),  # 500, 10,000, 500, 1
            # 10 epochs of 3,100 updates: longer than the stage, as there, so that the decoder has learned to read the
            # code before the code is paid for in full
            anneal_epochs=34,
            cycled_epochs=34,  # 40: as long as the ramp, which is most of the run
            pretrain_epochs=17,  # 5: half of the ramp, there too
            ramp="batches",  # "examples"; its length is this profile's own in any case
            window=10,  # 15 released; 10 is almost surely what the published text results used
            stop_patience=2,  # 1; one bad epoch of so few updates does not end the stage
        ),
        # Trained until the schedule ends it, 10 to 50 minutes on one core: how it was found stands in results/README.md
        "scaled": replace(
            TEXT,
            # all words, all 20,000 / 97-word documents, 100,000 / 10,000 / 10,000 of them; see `KNOWN_ONLY`
            data=DataSettings(max_len=50, vocab_size=1000, train=12_000, valid=1000, test=1000),
            model=small_text(hidden=96),  # 1024
            # 1.0, as in `quick`; an epoch is 50 updates (about 3,100), so that the stage can be short; 2, 15, 100
            schedule=replace(TEXT.schedule, lr=0.3, epoch_updates=50, patience=8, decay_from=120, max_epochs=600),
            evaluation=Evaluation(iw_samples=100, observe_every=50, mi_draws=10),  # 500, 500, 1
            # 10 epochs of 3,100 updates, a quarter of a run or less. Here most of it: once the weight is 1 the rate has
            # to fall soon, or the code is lost, and by then the words have to be learned
            anneal_epochs=120,
            cycled_epochs=120,  # 40, as in `quick`
            pretrain_epochs=60,  # 5: half of the ramp, there too
            ramp="batches",  # "examples"; its length is this profile's own in any case
            window=10,  # 15 released; 10 is almost surely what the published text results used
            stop_patience=2,  # 1; one bad epoch of so few updates does not end the stage
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
            cycled_epochs=1,
            pretrain_epochs=1,
            pseudo_inputs=10,
        ),
        "quick": replace(
            IMAGES,
            data=replace(IMAGES.data, train=2000, valid=300, test=300),
            model=SMALL_IMAGES,
            # 1e-3, 1000 epochs: Adam moves a weight by its rate per update, and 300 of them must do
            schedule=replace(IMAGES.schedule, lr=1e-2, epoch_updates=10, max_epochs=30),
            evaluation=Evaluation(iw_samples=50, iw_examples=100, observe_every=10, probe=300, mi_draws=10),
            cycled_epochs=20,  # 40 of 1000
        ),
        "scaled": replace(
            IMAGES,
            data=replace(IMAGES.data, valid=1000),  # all
            model=replace(IMAGES.model, encoder=16, last=128, kernels=(7, 5, 5, 3, 3), channels=16),  # 64, 512, 13, 64
            # An epoch is 50 updates (447), so that the aggressive stage, whose end is decided once an epoch, can be
            # short. 1e-3, 1000 epochs and a patience of 20 of the longer ones: at .003 a run of 100 short epochs was
            # still improving, at .01 it ends by its own rule
            schedule=replace(IMAGES.schedule, lr=1e-2, epoch_updates=50, max_epochs=400, patience=8),
            evaluation=Evaluation(iw_examples=1000, observe_every=10, mi_draws=10),  # all 8,070 test images, 500, 1
            pseudo_inputs=100,  # 500
        ),
    },
}


# 21% of this set's words are beyond a vocabulary of 1,000 (paper: 4%): how many a document has is a trait that plain
# training codes (results/README.md), so where the vocabulary is cut they are left out
KNOWN_ONLY = ("yahoo-small",)


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
    precision: str = "float32"  # of its products, see `numerics`
    family: str = field(default="", compare=False)

    def __post_init__(self):
        choose(self.precision, PRECISIONS, "precision")

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


def values_for(dataset: str, profile: str, kind: str) -> Profile:
    """A profile's values for a data set of this kind, one of `data.FAMILIES`. Raises `UnknownName`."""
    choose(profile, PROFILES, "profile")
    table = TABLE[kind]
    values = table[choose(profile, table, f"profile of {dataset}")]
    leave_out = dataset in KNOWN_ONLY and values.data.vocab_size is not None
    return replace(values, data=replace(values.data, known_only=True)) if leave_out else values


def resolve(
    dataset: str, method: str, profile: str, seed: int, precision: str = "float32", *, kind: str = ""
) -> Config:
    """The configuration of a run.

    kind: `Data.family`, where the data are loaded; without it, what the name or path says. Raises `UnknownName` for a
    method or profile that does not exist, and BadValue for a method that is not made for this kind of data.
    """
    check_seed(seed)
    kind = kind or family(dataset)
    values = values_for(dataset, profile, kind)
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
    if found.objective.cycles:  # each new ramp makes the validation loss worse: the rate waits for the last one
        schedule = replace(schedule, decay_in_ramp=False)
    sizes = (values.data, values.model, schedule, values.evaluation)
    return Config(dataset, found, profile, seed, *sizes, precision, kind)


def _fit_method(method: Method, profile: Profile, explicit: set[str]) -> Method:
    """The profile's values of the knobs that depend on the size of the job, where the method has any use for them and
    its name does not set them itself."""
    objective, wanted = method.objective, {"objective": {}, "inference": {}, "variant": {}}
    if objective.anneal_epochs:
        epochs = profile.cycled_epochs if objective.cycles else profile.anneal_epochs
        wanted["objective"] |= {"anneal_epochs": epochs, "ramp": profile.ramp}
    if objective.pretrain_epochs:
        wanted["objective"]["pretrain_epochs"] = profile.pretrain_epochs
    if isinstance(method.inference, Aggressive):
        wanted["inference"] = {knob: getattr(profile, knob) for knob in STAGE}
    if method.variant.prior == "vamp":
        wanted["variant"]["pseudo_inputs"] = profile.pseudo_inputs
    for part, values in wanted.items():
        values = {knob: value for knob, value in values.items() if knob not in explicit}
        method = replace(method, **{part: replace(getattr(method, part), **values)})
    return method
