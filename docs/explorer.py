"""What the interactive page of the posterior mean space draws: the toy's records as one small script."""

import base64
import json
from pathlib import Path

import numpy as np

from lagvae_lib.config.methods import colour, label
from lagvae_lib.plots.toy_curves import AXES, lags
from lagvae_lib.runs.record import Records, Run

POINTS = 250  # of the 500 of each measurement; the relative lag is over all of them
SCALE = 4000  # steps per unit of z in the 16 bits of a coordinate, which reach to 8
FIRST = ("aggressive", "vae")  # in the list of methods


def write(folder: Path) -> None:
    """`explorer-data.js` and the copy of plotly that the page loads."""
    import plotly

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "explorer-data.js").write_text(f"const EXPLORER = {json.dumps(data())};\n")
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    (folder / "plotly.min.js").write_bytes(source.read_bytes())


def data() -> dict:
    """scale, and the methods that have points, Aggressive and VAE first."""
    runs = {run.metrics["method"]: run for run in Records("scaled").toy() if run.points and run.metrics["seed"] == 0}
    order = sorted(runs, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), list(runs).index(name)))
    return {"scale": SCALE, "points": POINTS, "methods": [method(runs[name]) for name in order]}


def method(run: Run) -> dict:
    """One method: decoder updates, relative lags, and both coordinates of each measurement (16-bit, base64)."""
    name, shares = run.metrics["method"], lags(run)
    coded = [np.clip(np.round(run.points[axis][:, :POINTS].astype(float) * SCALE), -32767, 32767) for axis in AXES]
    return {
        "label": label(name, "toy"),
        "colour": colour(name),
        "at": run.points["iteration"].tolist(),
        "lag": [None if np.isnan(share) else round(float(share), 4) for share in shares],
        "xy": [base64.b64encode(values.astype("<i2").tobytes()).decode() for values in coded],
    }
