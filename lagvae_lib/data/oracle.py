"""The toy's exact likelihood under its true generator, by quadrature over the two-dimensional z.

No model may beat it by more than its error. The committed record, `results/oracle/synthetic.json`, is read at once
and takes minutes to compute.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lagvae_lib.atomic import write_text
from lagvae_lib.data.synthetic import FRESH_LINES, FRESH_SEED, TrueGenerator, fresh_lines, synthetic_corpus
from lagvae_lib.paths import recorded, results_dir


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


PLACE = "oracle", "synthetic.json"  # among the records


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
    write_text(path := path or results_dir().joinpath(*PLACE), json.dumps(record, allow_nan=False) + "\n")
    return path


def read_oracle(path: Path | None = None) -> dict[str, object]:
    """The stored oracle: `test` and `fresh`, each with n, nll, nll_se, kl, kl_se, log_px, kl_per_line (nats).

    Where the results have been moved and have none, it is the repository's own. Raises FileNotFoundError if there is
    none either, with the call that writes it.
    """
    path = path or recorded(*PLACE)
    if not path.exists():
        raise FileNotFoundError(f"no oracle at {path}; lagvae_lib.data.oracle.write_oracle() computes it")
    return json.loads(path.read_text("utf-8"))
