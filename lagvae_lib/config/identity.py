"""When a saved configuration is that of a run, and what a configuration is called among others."""

import hashlib
import json
import math
from dataclasses import fields, is_dataclass

from lagvae_lib.config.profiles import Config


def same_run(saved: dict, metrics: dict, config: Config) -> bool:
    """Whether a saved configuration, and what its run has measured ({} before its end), are those of this run.

    A cap on epochs that a run never met, because its schedule ended it before, makes no other run.
    """
    if metrics.get("ended") == "schedule" and metrics.get("epochs", math.inf) <= config.schedule.max_epochs:
        saved = saved | {"schedule": saved["schedule"] | {"max_epochs": config.schedule.max_epochs}}
    return same_configuration(saved, config)


def same_configuration(saved: dict, config: object) -> bool:
    """Whether a saved configuration, or part of one, is this; a knob younger than the record must be at its default.

    How a method is called in tables, and where it comes from, may change (fields without `compare`).
    """
    for knob in fields(config):
        value = getattr(config, knob.name)
        if not knob.compare:
            continue
        if knob.name not in saved:
            if value != knob.default:
                return False
        elif is_dataclass(value):
            if not isinstance(saved[knob.name], dict) or not same_configuration(saved[knob.name], value):
                return False
        elif saved[knob.name] != (list(value) if isinstance(value, tuple) else value):
            return False
    return set(saved) <= {knob.name for knob in fields(config)}


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that stand for a configuration."""
    values = {key: value for key, value in as_json(config).items() if key != "family"}  # older folders are without it
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def as_json(config: Config) -> dict:
    """The configuration as plain values, as `config.json` holds it."""
    return json.loads(json.dumps(config.as_dict()))
