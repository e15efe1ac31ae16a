"""The paper's synthetic data (Section 3.2), its true generator, and the exact likelihood of any line.

The generator is an LSTM with random weights and a two-dimensional z from a mixture of four Gaussians.
Everything is drawn from one random stream, in the order of the released recipe:

1. what PyTorch's default initialisation consumes, thrown away: embeddings (normal), then LSTM and linear;
2. the weights, each U(-1, 1): embedding, LSTM (input, recurrent, two biases), W (z to c0), W1, W2; then W2
   again, U(-5, 5);
3. per batch of 16 lines: the first words, the mixture components, the Gaussian noise line by line, and nine
   rounds of 16 uniforms in double precision, each made a word by inverting the cumulative distribution.

The first 16,000 lines, in order, are the training file and the last 4,000 the test file. Measured against the
released files: 19,994 of the 20,000 lines are identical (19,996 if computed in single precision). In the other
six a uniform falls so near the border between two words that rounding decides; double precision, as used
here, makes it all but certain that every machine gets the same lines.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lagvae_lib.atomic import write_text
from lagvae_lib.paths import ROOT, data_dir, results_dir

CENTRES = ((-2.0, -2.0), (2.0, 2.0), (-2.0, 2.0), (2.0, -2.0))
FRESH_SEED = 20190507
FRESH_LINES = 2000


@dataclass(frozen=True)
class Recipe:
    """Sizes and ranges of the generator; the defaults are the paper's, smaller ones serve tests."""

    vocab: int = 1000
    embedding: int = 100
    hidden: int = 100
    length: int = 10
    lines: int = 20_000
    train_lines: int = 16_000
    batch: int = 16
    weight_range: float = 1.0
    direct_range: float = 5.0  # of W2, from z straight to the logits
    seed: int = 19950927


PAPER = Recipe()


@dataclass(frozen=True)
class Quadrature:
    """Adaptive midpoint rule on the square [-half_width, half_width]^2.

    The prior mass outside the default square is 7e-6, which is also the mean posterior mass outside it over
    lines of the generator. Cells more than `depth` nats below the line's highest, with no neighbour above
    that, keep their value; the others are split in four until log p(x) moves by less than `tolerance` nats
    and the KL by less than ten times that. Below the posterior's width the error falls faster than any power
    of the step, so the last move is a cautious bound: on 64 test lines log p(x) lay within 5e-4 nats (on
    average 4e-5) of a rule with smaller cells, depth 12 and a tenth of the tolerance.
    """

    half_width: float = 6.5
    cells: int = 24
    min_levels: int = 2
    max_levels: int = 6
    depth: float = 9.0
    tolerance: float = 2e-3


@dataclass(frozen=True)
class Oracle:
    """Per line, in nats: `log_px` [N] = log p(x) and `kl` [N] = KL(p(z|x) || p(z)); `levels` [N] halvings."""

    log_px: Tensor
    kl: Tensor
    levels: Tensor

    def summary(self) -> dict[str, float]:
        """Mean NLL and KL in nats per line, each with its standard error over lines."""
        values = {"nll": -self.log_px, "kl": self.kl}
        record = {"n": len(self.log_px)}
        for name, v in values.items():
            record |= {name: v.mean().item(), f"{name}_se": (v.std() / math.sqrt(len(v))).item()}
        return record


@dataclass(frozen=True)
class SyntheticCorpus:
    """`train` and `test` sentences, lists of words "0".."999"; `sha256` of the two files in that order."""

    train: list[list[str]]
    test: list[list[str]]
    sha256: str


def _draw_weights(recipe: Recipe, stream: torch.Generator) -> dict[str, Tensor]:
    """Weights in the recipe's order; leaves `stream` where the lines begin."""
    v, e, h = recipe.vocab, recipe.embedding, recipe.hidden
    shapes = {"embed": (v, e), "w_in": (4 * h, e + 2), "w_rec": (4 * h, h), "b_in": (4 * h,), "b_rec": (4 * h,)}
    shapes |= {"w_z": (h, 2), "w1": (v, h), "w2": (v, 2)}

    def uniform(name: str, bound: float) -> Tensor:
        return torch.empty(shapes[name]).uniform_(-bound, bound, generator=stream)

    torch.empty(v, e).normal_(generator=stream)
    for name in list(shapes)[1:]:
        uniform(name, 1.0)
    weights = {name: uniform(name, recipe.weight_range) for name in shapes}
    weights["w2"] = uniform("w2", recipe.direct_range)
    return weights


def _draw_noise(recipe: Recipe, lines: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """First words [N], z [N, 2] and uniforms [N, length - 1], batch by batch in the recipe's order."""
    first, z, uniforms = [], [], []
    centres = torch.tensor(CENTRES, dtype=torch.float32)
    for _ in range(math.ceil(lines / recipe.batch)):
        first.append((torch.rand(recipe.batch, generator=stream) * recipe.vocab).long())
        component = (torch.rand(recipe.batch, generator=stream, dtype=torch.float64) * len(CENTRES)).long()
        # Two at a time: a longer call would take another path through PyTorch's normal sampler.
        noise = [torch.empty(2).normal_(generator=stream) for _ in range(recipe.batch)]
        z.append(centres[component] + torch.stack(noise))
        rounds = recipe.length - 1
        uniforms.append(torch.rand(rounds, recipe.batch, generator=stream, dtype=torch.float64).T)
    return torch.cat(first)[:lines], torch.cat(z)[:lines], torch.cat(uniforms)[:lines]


class TrueGenerator:
    """p(z) p(x|z) of the synthetic data: an LSTM on [embedding; z].

    c0 = W z, h0 = tanh(c0), logits = W1 h + W2 z.
    `stream` stands where the recipe's own lines begin. Likelihoods and samples carry no gradients.
    """

    def __init__(self, recipe: Recipe = PAPER, dtype: torch.dtype = torch.float32, chunk: int = 1024):
        """chunk: (sentence, z) pairs evaluated at once; bounds memory at about 10 KB times the chunk."""
        self.recipe, self.dtype, self.chunk = recipe, dtype, chunk
        self.stream = torch.Generator().manual_seed(recipe.seed)
        w = {name: value.to(dtype) for name, value in _draw_weights(recipe, self.stream).items()}
        w_token, w_latent = w["w_in"].split([recipe.embedding, 2], dim=1)
        self._token = w["embed"] @ w_token.T + w["b_in"] + w["b_rec"]  # [V, 4H]: shared by every z
        self._latent, self._rec, self._start = w_latent.T, w["w_rec"].T, w["w_z"].T
        self._out = torch.cat([w["w1"], w["w2"]], dim=1).T  # [H+2, V], for [h; z]

    def _step(self, words: Tensor, latent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.addmm(self._token[words] + latent, h, self._rec)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def _states(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = z @ self._start
        return z @ self._latent, c.tanh(), c

    @torch.no_grad()
    def pair_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x_i | z_i) in nats, [P], for words x [P, T] and z [P, 2]."""
        parts = zip(x.split(self.chunk), z.to(self.dtype).split(self.chunk), strict=True)
        return torch.cat([self._chunk_log_prob(*part) for part in parts])

    def _chunk_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        latent, h, c = self._states(z)
        total = torch.full((len(x),), -math.log(self.recipe.vocab), dtype=self.dtype)
        for t in range(x.shape[1] - 1):
            h, c = self._step(x[:, t], latent, h, c)
            logits = torch.cat([h, z], dim=1) @ self._out
            total += logits.gather(1, x[:, t + 1 : t + 2]).squeeze(1) - logits.logsumexp(1)
        return total

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, [B, k], for words x [B, T] and z [B, k, 2]; the first word counts log(1/V)."""
        b, k, _ = z.shape
        return self.pair_log_prob(x.repeat_interleave(k, 0), z.reshape(b * k, 2)).view(b, k)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of the four-Gaussian mixture in nats, [...], for z [..., 2]."""
        centres = torch.tensor(CENTRES, dtype=z.dtype)
        squares = (z.unsqueeze(-2) - centres).square().sum(-1)
        return (-0.5 * squares).logsumexp(-1) - math.log(len(CENTRES) * 2 * math.pi)

    @torch.no_grad()
    def words(self, first: Tensor, z: Tensor, uniforms: Tensor) -> Tensor:
        """Sentences [N, T] from first words [N], z [N, 2] and uniforms [N, T-1]: inverse sampling."""
        parts = zip(*(v.split(self.chunk) for v in (first, z.to(self.dtype), uniforms)), strict=True)
        return torch.cat([self._chunk_words(*part) for part in parts])

    def _chunk_words(self, first: Tensor, z: Tensor, uniforms: Tensor) -> Tensor:
        latent, h, c = self._states(z)
        sentence = [first]
        for u in uniforms.T:
            h, c = self._step(sentence[-1], latent, h, c)
            cumulative = (torch.cat([h, z], dim=1) @ self._out).softmax(1).double().cumsum(1)
            below = (cumulative < (u * cumulative[:, -1]).unsqueeze(1)).sum(1)
            sentence.append(below.clamp(max=self.recipe.vocab - 1))
        return torch.stack(sentence, dim=1)


def generate(recipe: Recipe = PAPER) -> Tensor:
    """The synthetic data, words [lines, length]: the first `train_lines` are for training, the rest for testing."""
    generator = TrueGenerator(recipe, torch.float64)
    return generator.words(*_draw_noise(recipe, recipe.lines, generator.stream))


def fresh_lines(n: int, seed: int = FRESH_SEED, recipe: Recipe = PAPER) -> Tensor:
    """`n` further lines [n, length] of the same generator, from a stream of their own.

    Raises ValueError if `seed` is the recipe's own: such lines would not be independent of the weights.
    """
    if seed == recipe.seed:
        raise ValueError(f"seed {seed} is the one that drew the generator; give another")
    return TrueGenerator(recipe, torch.float64).words(*_draw_noise(recipe, n, torch.Generator().manual_seed(seed)))


def _centres(cells: int, half_width: float) -> Tensor:
    """Cell centres [cells * cells, 2] of the square."""
    axis = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2 * half_width / cells) - half_width
    return torch.cartesian_prod(axis, axis)


def _near_peak(log_joint: Tensor, cells: int, depth: float) -> Tensor:
    """Cells [B, cells^2] that lie, or touch one that lies, within `depth` nats of the line's highest."""
    field = log_joint.view(-1, 1, cells, cells)
    highest = torch.nn.functional.max_pool2d(field, 3, stride=1, padding=1)
    return (highest > field.amax((2, 3), keepdim=True) - depth).view_as(log_joint)


def _halve(values: Tensor, cells: int) -> Tensor:
    """Each cell's value handed to its four quarters: [B, cells^2] -> [B, 4 cells^2]."""
    field = values.view(-1, cells, cells)
    return field.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(len(values), -1)


def _integrate(log_lik: Tensor, log_prior: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """log p(x) [B] and KL(p(z|x) || p(z)) = E_{p(z|x)} log p(x|z) - log p(x) [B], cells of side `width`."""
    log_joint = log_lik.double() + log_prior
    weights = log_joint.softmax(1)
    log_px = log_joint.logsumexp(1) + 2 * math.log(width)
    return log_px, (weights * log_lik).sum(1) - log_px


def _oracle_chunk(generator: TrueGenerator, x: Tensor, rule: Quadrature) -> Oracle:
    """`oracle` for the few lines x [B, T] whose fields fit in memory together."""
    cells = rule.cells
    z = _centres(cells, rule.half_width)
    log_lik = generator.log_prob(x, z.expand(len(x), -1, 2))
    log_px, kl = _integrate(log_lik, generator.prior_log_prob(z), 2 * rule.half_width / cells)
    levels, active = torch.zeros(len(x), dtype=torch.long), torch.arange(len(x))
    for level in range(1, rule.max_levels + 1):
        joint = log_lik + generator.prior_log_prob(z).to(log_lik.dtype)
        mask = _halve(_near_peak(joint, cells, rule.depth), cells)
        log_lik = _halve(log_lik, cells)
        cells *= 2
        z = _centres(cells, rule.half_width)
        line, cell = mask.nonzero(as_tuple=True)
        log_lik[line, cell] = generator.pair_log_prob(x[active[line]], z[cell])
        new_px, new_kl = _integrate(log_lik, generator.prior_log_prob(z), 2 * rule.half_width / cells)
        moved = torch.maximum((new_px - log_px[active]).abs(), (new_kl - kl[active]).abs() / 10)
        log_px[active], kl[active], levels[active] = new_px, new_kl, level
        going = (moved > rule.tolerance) | (level < rule.min_levels)
        active, log_lik = active[going], log_lik[going]
        if not len(active):
            return Oracle(log_px, kl, levels)
    raise ArithmeticError(f"{len(active)} lines still move after {rule.max_levels} halvings; raise max_levels")


@torch.no_grad()
def oracle(
    lines: Tensor | Sequence[Sequence[str | int]],
    rule: Quadrature = Quadrature(),
    generator: TrueGenerator | None = None,
    chunk: int = 16,
) -> Oracle:
    """log p(x) and KL(p(z|x) || p(z)) of each line under the true generator, by quadrature over z.

    lines: words [N, T], as integers or as a corpus' strings. chunk: lines treated together; bounds memory.
    Raises ArithmeticError if a line has not settled after `rule.max_levels` halvings of the step.
    """
    generator = generator or TrueGenerator()
    x = lines if isinstance(lines, Tensor) else torch.tensor([[int(w) for w in line] for line in lines])
    parts = [_oracle_chunk(generator, part, rule) for part in x.split(chunk)]
    return Oracle(*(torch.cat([getattr(p, name) for p in parts]) for name in ("log_px", "kl", "levels")))


def _sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def _as_text(lines: Tensor) -> str:
    return "".join(" ".join(map(str, line)) + "\n" for line in lines.tolist())


def _well_formed(text: str, lines: int, recipe: Recipe = PAPER) -> bool:
    """Whether `text` is `lines` lines of `length` words of the vocabulary."""
    words = {str(w) for w in range(recipe.vocab)}
    rows = [line.split(" ") for line in text.splitlines()]
    return len(rows) == lines and all(len(row) == recipe.length and words.issuperset(row) for row in rows)


def _read_cache(folder: Path) -> tuple[str, str] | None:
    """The two cached files, or None if one is missing, altered or malformed."""
    try:
        train, test = ((folder / name).read_text("utf-8") for name in ("train.txt", "test.txt"))
        recorded = (folder / "sha256").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    sizes = PAPER.train_lines, PAPER.lines - PAPER.train_lines
    good = _sha256(train, test) == recorded and _well_formed(train, sizes[0]) and _well_formed(test, sizes[1])
    return (train, test) if good else None


def _write_cache(folder: Path, texts: tuple[str, str]) -> None:
    """Keep the texts if that is possible: they are the same when they are generated anew."""
    with suppress(OSError):
        for name, text in zip(("train.txt", "test.txt"), texts, strict=True):
            write_text(folder / name, text)
        write_text(folder / "sha256", _sha256(*texts) + "\n")


def synthetic_corpus() -> SyntheticCorpus:
    """The synthetic data, from `data_dir()/synthetic`; generated anew (seconds) if missing or damaged."""
    folder = data_dir() / "synthetic"
    texts = _read_cache(folder)
    if texts is None:
        lines = generate()
        texts = _as_text(lines[: PAPER.train_lines]), _as_text(lines[PAPER.train_lines :])
        _write_cache(folder, texts)
    train, test = ([line.split() for line in text.splitlines()] for text in texts)
    return SyntheticCorpus(train, test, _sha256(*texts))


def oracle_path(results: Path | None = None) -> Path:
    """Where the oracle's record lies."""
    return (results or results_dir()) / "oracle" / "synthetic.json"


def _record(exact: Oracle) -> dict[str, object]:
    log_px, kl = ([round(v, 4) for v in values.tolist()] for values in (exact.log_px, exact.kl))
    return {**exact.summary(), "max_levels_used": exact.levels.max().item(), "log_px": log_px, "kl_per_line": kl}


def write_oracle(path: Path | None = None) -> Path:
    """Compute the oracle on the test lines and on `FRESH_LINES` fresh ones (minutes) and store it as JSON."""
    start, rule, corpus = time.perf_counter(), Quadrature(), synthetic_corpus()
    record = {"dataset": "synthetic", "unit": "nats per line", "data_sha256": corpus.sha256, "grid": asdict(rule)}
    record["test"] = _record(oracle(corpus.test, rule))
    record["fresh"] = {"seed": FRESH_SEED, **_record(oracle(fresh_lines(FRESH_LINES), rule))}
    record["seconds"] = round(time.perf_counter() - start, 1)
    write_text(path := path or oracle_path(), json.dumps(record, allow_nan=False) + "\n")
    return path


def read_oracle(path: Path | None = None) -> dict[str, object]:
    """The stored oracle: `test` and `fresh`, each with n, nll, nll_se, kl, kl_se, log_px, kl_per_line (nats).

    Where the results have been moved and have none, it is the repository's own. Raises FileNotFoundError if there is
    none either, with the call that writes it.
    """
    path = path or (oracle_path() if oracle_path().exists() else oracle_path(ROOT / "results"))
    if not path.exists():
        raise FileNotFoundError(f"no oracle at {path}; lagvae_lib.data.synthetic.write_oracle() computes it")
    return json.loads(path.read_text("utf-8"))
