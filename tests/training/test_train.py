"""A whole run on a made-up set: it learns, resumes, and exports what the service loads."""

import pytest
import torch
from safetensors import safe_open

from recognition.networks.mobilenetv3 import mobilenetv3_large
from training import measure
from training.export import export
from training.train import Trainer, _parser, learning_rate, resize, size_at, train, update_average


@pytest.fixture
def options(crops, teacher, tmp_path):
    """Options of a run of two steps."""
    return _parser().parse_args(
        ["mobilenetv3_large", "--faces", str(crops), "--teacher", str(teacher)]
        + ["--checkpoint", str(tmp_path / "run.pt"), "--batch", "4", "--epochs", "0.5"]
        + ["--hold-out", "0.34", "--no-amp", "--seed", "5"]
    )


@pytest.fixture
def trainer(options):
    """A run before its first step: 16 crops of 4 people, 8 crops of 2 people held out."""
    return Trainer(options)


def test_repeated_steps_on_one_batch_lower_the_loss(trainer, monkeypatch):
    first = trainer.data.batch(0, 4, 5)
    monkeypatch.setattr(trainer.data, "batch", lambda *_: first)
    monkeypatch.setattr(trainer, "progress", lambda: 0.1)
    losses = [sum(trainer.train_step().values()) for _ in range(8)]
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_a_resumed_run_ends_like_an_uninterrupted_one(options):
    whole = Trainer(options)
    train(whole)
    broken = Trainer(options)
    broken.train_step()
    broken.save()
    resumed = Trainer(options)
    resumed.load()
    assert resumed.step == 1
    train(resumed)
    assert whole.step == resumed.step == 2
    for name, value in whole.average.items():
        torch.testing.assert_close(resumed.average[name], value, msg=name)


def test_the_export_loads_into_the_network_in_half_precision(trainer, tmp_path):
    trainer.train_step()
    trainer.save()
    export(trainer.options.checkpoint, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.get_tensor("features.0.0.weight").dtype == torch.float16
        assert set(file.keys()) == set(mobilenetv3_large().state_dict())
    loaded = measure.load_weights("mobilenetv3_large", tmp_path / "out.safetensors")
    images = trainer.held_out.images
    vectors = measure.embed(loaded, images), measure.embed(trainer.averaged(), images)
    assert (vectors[0] * vectors[1]).sum(1).min() > 0.999


def test_a_start_fits_the_map_to_its_own_outputs(trainer, options, tmp_path):
    """The targets of the second run lie nearer to the network than a random map's would."""
    trainer.save()
    export(options.checkpoint, tmp_path / "start.safetensors")
    options.start = tmp_path / "start.safetensors"
    started = Trainer(options)
    outputs = measure.embed(started.network.eval(), started.data.images)
    fitted = (outputs * started.data.targets).sum(1).mean()
    assert fitted > (outputs * trainer.data.targets).sum(1).mean() + 0.02


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(done) for done in (0.0, 0.025, 0.05, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1)
    assert rates[2] > rates[3] > rates[4] == pytest.approx(0.01)


def test_sizes_share_the_schedule_equally():
    assert [size_at(done, [64, 112]) for done in (0, 0.49, 0.5, 1.0)] == [64, 64, 112, 112]
    assert resize(torch.zeros(2, 3, 112, 112), 64).shape == (2, 3, 64, 64)


def test_people_held_out_are_measured_at_the_size_now_trained_at(trainer, monkeypatch):
    trainer.options.sizes = [64, 112]
    seen = []
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 512)
    )
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[-1]))
    monkeypatch.setattr(trainer, "averaged", lambda: network)
    for done in (0.1, 0.9):
        monkeypatch.setattr(trainer, "progress", lambda done=done: done)
        trainer.report()
    assert seen == [64, 112]


def test_average_moves_by_its_share():
    network = torch.nn.BatchNorm1d(1)
    average = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    update_average(average, network, decay=0.75)
    assert average["weight"].item() == average["running_var"].item() == 0.25
    assert average["bias"].item() == 0
