"""The outer loop: the KL weight, selection, halving, stopping, and looks that change nothing."""

import math
from dataclasses import replace

import pytest
import torch

from lagvae_lib.config.build import build_model
from lagvae_lib.config.methods import find
from lagvae_lib.config.profiles import resolve
from lagvae_lib.inference import Step
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.models.vae import Loss
from lagvae_lib.objectives import Objective
from lagvae_lib.runs.observe import observer
from lagvae_lib.schedule import Progress, Schedule
from lagvae_lib.training import Trainer
from tests.tiny import tiny_config, tiny_data


@pytest.mark.parametrize(("per_epoch", "epochs", "start"), [(7, 10, 0.1), (100, 1, 0.1), (3, 2.5, 0.0)])
def test_annealing_is_linear_in_the_iteration(per_epoch, epochs, start):
    objective, total = Objective(start=start, anneal_epochs=epochs), per_epoch * epochs
    for t in range(1, int(2 * total)):
        assert objective.weight(t, per_epoch) == pytest.approx(min(1, start + (1 - start) * t / total))


def test_weights_of_the_other_objectives_are_constant():
    assert {Objective().weight(t, 10) for t in range(1, 50)} == {1.0}
    assert {find("beta-0.4").objective.weight(t, 10) for t in range(1, 50)} == {0.4}


@pytest.mark.parametrize("start", [0.0, 0.1])
def test_cycles_share_the_epochs_of_annealing(start):
    """Fu et al.: M cycles of T/M iterations, a ramp in the first half of each, then the full weight."""
    objective, per_epoch = Objective(start=start, anneal_epochs=40, cycles=4), 10
    weights = [objective.weight(t, per_epoch) for t in range(1, 501)]
    assert weights[:100] == weights[100:200] == weights[300:400]
    assert weights[:51] == pytest.approx([start + (1 - start) * t / 50 for t in range(51)])
    assert set(weights[50:100]) == set(weights[400:]) == {1.0}  # after the last cycle, to the schedule's end
    assert objective.settled_from == 35  # the last ramp ends there
    assert Objective(anneal_epochs=40, cycles=1).settled_from == 20


@pytest.mark.parametrize(("dataset", "profile", "epochs"), [("yelp", "scaled", 120), ("omniglot", "paper", 40)])
def test_the_rate_waits_for_the_last_cycle(dataset, profile, epochs):
    config, plain = (resolve(dataset, method, profile, 0) for method in ("cyclical", "vae-anneal"))
    assert (config.method.objective.anneal_epochs, config.method.objective.cycles) == (epochs, 4)
    assert not config.schedule.decay_in_ramp and replace(config.schedule, decay_in_ramp=True) == replace(
        plain.schedule, decay_in_ramp=True
    )


def test_knobs_that_are_valid_together_have_no_order():
    first, second = (find(f"vae+{knobs}") for knobs in ("cycles=2+anneal_epochs=8", "anneal_epochs=8+cycles=2"))
    assert first.objective == second.objective == Objective(anneal_epochs=8, cycles=2)
    assert find("aggressive+max_steps=9+window=3").inference.window == 3
    with pytest.raises(ValueError, match="give anneal_epochs"):
        find("vae+cycles=2")


def test_pretraining_has_weight_zero_and_what_follows_counts_from_its_end():
    objective = Objective(start=0.0, anneal_epochs=2, pretrain_epochs=3)
    weights = [objective.weight(t, 5) for t in range(1, 31)]
    assert weights[:15] == [0.0] * 15
    assert weights[15:25] == pytest.approx([t / 10 for t in range(1, 11)])
    assert set(weights[25:]) == {1.0}


FALLING = {"kl_weight": 0.2, "start": 1.0, "anneal_epochs": 10}


@pytest.mark.parametrize("bad", [{"cycles": 2}, {"free_nats": -1.0}, {"pretrain_epochs": -1}, FALLING])
def test_objectives_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=r"give anneal_epochs|at least 0|start is at most kl_weight"):
        Objective(**bad)


def test_pretraining_clips_at_the_methods_own_norm():
    config, data = tiny_config("pretrain-free-bits+max_norm=0.001"), tiny_data()
    torch.manual_seed(0)
    method, schedule = config.method, replace(config.schedule, max_epochs=1)
    model, parts = build_model(config, data), {"objective": method.objective, "inference": method.inference}
    made = Trainer(model, data.train, data.valid, **parts, schedule=schedule, seed=0)
    made.fit()
    assert [row["clipped"] for row in made.state.history] == [1.0, 1.0]


def test_pretraining_keeps_the_encoder_and_begins_the_decoder_anew():
    config, data = tiny_config("pretrain-free-bits"), tiny_data()
    assert config.method.objective.pretrain_epochs == 1
    torch.manual_seed(0)
    model = build_model(config, data)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    made = Trainer(
        model,
        data.train,
        data.valid,
        objective=config.method.objective,
        inference=config.method.inference,
        schedule=replace(config.schedule, max_epochs=1),
        seed=0,
    )
    after = {}

    def keep(trainer):
        if trainer.state.epoch == 1 and not after:
            after.update({name: value.clone() for name, value in model.state_dict().items()})

    made.fit(keep)
    for name, value in after.items():
        assert torch.equal(value, initial[name]) == name.startswith("decoder."), name
    assert [row["kl_weight"] for row in made.state.history] == pytest.approx([0.0, 1.0])
    assert made.state.progress.best_loss == made.state.history[1]["valid_loss"]
    assert set(made.state.seconds) >= {"pretraining", "plain"}


def trainer(**schedule):
    """A trainer that is fed validation losses, see `follow`."""
    config, data = tiny_config("vae"), tiny_data()
    torch.manual_seed(0)
    made = Trainer(
        build_model(config, data),
        data.train,
        data.valid,
        objective=Objective(),
        inference=Amortised(),
        schedule=Schedule(**{"lr": 0.1, "max_epochs": 100} | schedule),
        seed=0,
    )
    return made


def follow(made, losses):
    """Feed the schedule one loss per epoch; the learning rate after each, up to the stop."""
    rates = []
    for loss in losses:
        made._follow_schedule(loss)
        made.state.epoch += 1
        rates.append(made.state.progress.lr)
        if made.state.progress.ended:
            break
    return rates


def test_the_rate_is_halved_after_two_bad_epochs_and_the_best_is_loaded():
    made = trainer(patience=2)
    made._follow_schedule(10.0)
    best = made.model.decoder.vocabulary.weight.detach().clone()
    with torch.no_grad():
        made.model.decoder.vocabulary.weight.add_(1.0)
    assert follow(made, [11.0]) == [0.1]
    assert follow(made, [10.5]) == [0.05]
    assert torch.equal(made.model.decoder.vocabulary.weight, best)
    assert made.optimisers.decoder.param_groups[0]["lr"] == 0.05


def test_what_is_better_than_the_loss_of_the_last_decay_is_not_yet_the_best():
    """After a decay the loss that caused it is the reference, and the model of an earlier epoch stays selected."""
    progress, schedule = Progress(0.1), Schedule(lr=0.1, patience=1, decay_from=0, reference="decay")
    seen = [progress.after_epoch(schedule, loss, epoch, 0) for epoch, loss in enumerate([10.0, 12.0, 11.0, 11.0, 9.0])]
    assert seen == [(True, False), (False, True), (False, False), (False, False), (True, False)]
    assert progress.best_loss == 9.0 and progress.decays == 1


def test_a_good_epoch_resets_the_count():
    assert follow(trainer(patience=2), [10, 11, 9, 11, 8.9, 9]) == [0.1] * 6


def test_nothing_is_halved_before_decay_from():
    rates = follow(trainer(patience=2, decay_from=4), [10, 11, 11, 11, 11, 11])
    assert rates == [0.1] * 4 + [0.05] * 2


def test_nothing_is_halved_while_the_weight_still_moves():
    made = trainer(max_epochs=8, patience=2)
    made.objective = Objective(anneal_epochs=8, cycles=2)  # the last ramp ends after 6
    assert follow(made, [10, 11, 11, 11, 11, 11, 11]) == [0.1] * 6 + [0.05]


def test_training_stops_with_the_fifth_halving():
    rates = follow(trainer(patience=1), [10] + [11] * 20)
    assert rates == [0.1] + [0.1 * 0.5**k for k in range(1, 6)]


def draws_globally(model, iteration):
    """A look that spends torch's own random numbers, as a model that samples inside its decoder does."""
    return {"weight": float(model.decoder.vocabulary.weight.sum() + torch.rand(()))}


def test_looks_do_not_change_the_training():
    def final(observe_every):
        config, data = tiny_config("aggressive"), tiny_data()
        torch.manual_seed(0)
        model = build_model(config, data)
        made = Trainer(
            model,
            data.train,
            data.valid,
            objective=Objective(),
            inference=config.method.inference,
            schedule=replace(config.schedule, max_epochs=1),
            seed=0,
            units=data.units,
            observe=draws_globally,
            observe_every=observe_every,
            observe_dense=2,
        )
        made.fit()
        return made

    looked, blind = final(1), final(0)
    for a, b in zip(looked.model.parameters(), blind.model.parameters(), strict=True):
        assert torch.equal(a, b)
    seen = [row["iteration"] for row in looked.state.observations]
    assert seen == [t for t in range(len(looked.train) + 1) if t <= 2 or t % 5 == 0]
    assert blind.state.observations == []


class Script:
    """A strategy that moves nothing, gives the losses 1, 2, ..., and keeps what it was given."""

    def __init__(self):
        self.sizes, self.weights, self.information = [], [], []

    def begin(self):
        return {}

    def step(self, model, batch, optimisers, state):
        self.sizes.append(len(batch.x))
        self.weights.append(batch.kl_weight)
        loss = torch.tensor(float(len(self.sizes)))
        return Step(Loss(loss, 2 * loss, 3 * loss))

    def epoch_end(self, state, mi, mi_large=None):
        self.information.append((mi, mi_large))

    def evaluated(self, model):
        return model


def test_a_strategy_is_given_the_weight_and_both_mi_and_an_epoch_s_means_are_over_its_examples():
    made, script = trainer(max_epochs=2), Script()
    made.inference, made.objective = script, Objective(start=0.1, anneal_epochs=1.5)
    made.fit()
    updates, rows = len(made.train), made.state.history
    assert script.weights == [made.objective.weight(t, updates) for t in range(1, 2 * updates + 1)]
    assert len(set(script.weights)) > updates
    losses, sizes = range(1, updates + 1), script.sizes[:updates]
    mean = sum(n * loss for n, loss in zip(sizes, losses, strict=True)) / sum(sizes)
    assert mean != pytest.approx(sum(losses) / updates, rel=1e-3), "batches of different sizes are wanted"
    assert [rows[0][f"train_{name}"] for name in ("loss", "reconstruction", "kl")] == pytest.approx(
        [mean, 2 * mean, 3 * mean]
    )
    assert script.information == [(row["valid_mi"], row["valid_mi_large"]) for row in rows]
    assert all(mi != large for mi, large in script.information)


def test_a_validation_loss_that_is_no_number_ends_the_training():
    made = trainer(max_epochs=2)
    made.inference = Script()
    with torch.no_grad():
        next(made.model.decoder_parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the validation loss is nan after epoch 1"):
        made.fit()


def test_measurements_have_the_noise_of_the_seed_and_each_estimate_its_own_difference():
    data = tiny_data()
    torch.manual_seed(0)
    model = build_model(tiny_config("vae"), data).eval()
    with torch.no_grad():
        model.encoder.linear.weight.mul_(10_000)  # the means are 1e-5 apart at first
        found = [observer(tiny_config("vae", seed), data, "cpu")(model, 1) for seed in (0, 0, 1)]
    first, again, other = found
    assert first == again and first["kl"] == other["kl"] and first["mi"] != other["mi"]
    assert first["mi"] != first["mi_large"]
    for name in ("", "_large"):
        assert first[f"aggregate_kl{name}"] == pytest.approx(first["kl"] - first[f"mi{name}"])


def test_history_has_a_row_an_epoch_and_the_stage_of_each():
    config, data = tiny_config("aggressive-anneal"), tiny_data()
    torch.manual_seed(0)
    made = Trainer(
        build_model(config, data),
        data.train,
        data.valid,
        objective=config.method.objective,
        inference=replace(config.method.inference, stop_patience=1),
        schedule=replace(config.schedule, max_epochs=4),
        seed=0,
        units=data.units,
    )
    made.fit()
    rows = made.state.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["aggressive"]
    for row in rows:
        assert (row["inner_steps"] > 0) == row["aggressive"]
        assert all(math.isfinite(value) for value in row.values())
    assert rows[0]["kl_weight"] == pytest.approx(1.0)  # annealed over this profile's one epoch


@pytest.mark.parametrize(("asked", "made_of"), [(2, 2), (None, None), (1000, None)])
def test_an_epoch_has_the_updates_that_are_asked_for_and_anneals_by_them(asked, made_of):
    made = trainer(max_epochs=2, epoch_updates=asked)
    made.fit()
    updates = made_of or len(made.train)
    assert [row["iteration"] for row in made.state.history] == [updates, 2 * updates]


def test_an_epoch_without_updates_is_refused():
    with pytest.raises(ValueError, match="epoch_updates"):
        Schedule(epoch_updates=0)
