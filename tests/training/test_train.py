"""A whole run on a synthetic set: it learns, resumes, and exports weights that the service loads."""

import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from recognition.networks.mobilenetv3 import mobilenetv3_large
from training import gpu, targets
from training import train as training
from training.batches import GpuBatches, ProcessorBatches
from training.options import parser
from training.student import embed, update_average
from training.train import Trainer, learning_rate, resize, size_at, train


@pytest.fixture
def options(pack, teacher, tmp_path):
    """Return the options of a short run: two steps at a few pixels."""
    return parser().parse_args(
        ["mobilenetv3_large", "--pack", str(pack), "--teacher", str(teacher), "--steps", "2"]
        + ["--checkpoint", str(tmp_path / "run.pt"), "--weights", str(tmp_path / "run.safetensors")]
        + ["--batch", "4", "--hold-out", "0.34", "--sizes", "32", "--no-amp", "--seed", "5"]
        + ["--device", "cpu"]
    )


def test_repeated_steps_on_one_batch_lower_the_loss(options, monkeypatch):
    trainer = Trainer(options)
    first = trainer.batches.take(0, 32)
    monkeypatch.setattr(trainer.batches, "take", lambda *_: first)
    monkeypatch.setattr(trainer, "progress", lambda: 0.03)
    losses = [float(sum(trainer.train_step().values())) for _ in range(6)]
    assert min(losses[-2:]) < 0.85 * losses[0]


def test_a_resumed_run_ends_like_an_uninterrupted_one(options):
    options.mixup = 0.5
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
    for name, value in whole.students[0].average.items():
        torch.testing.assert_close(resumed.students[0].average[name], value, msg=name)


def test_the_export_is_the_published_layout_in_half_precision(options, capsys):
    trainer = Trainer(options)
    train(trainer)
    assert "held out: mobilenetv3_large TAR" in capsys.readouterr().out
    with safe_open(options.weights[0], "pt") as file:
        assert file.get_tensor("features.0.0.weight").dtype == torch.float16
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    network = mobilenetv3_large()
    assert shapes == {name: list(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(load_file(options.weights[0]))
    exact = mobilenetv3_large()
    exact.load_state_dict(trainer.students[0].average)
    images = trainer.faces.images[trainer.held_out[:2]]
    vectors = embed(network, images, amp=False), embed(exact, images, amp=False)
    assert (vectors[0] * vectors[1]).sum(1).min() > 0.999


def test_a_start_fits_the_map_to_its_own_outputs(options):
    """The targets of the second run are nearer to the network than with a random map."""
    trainer = Trainer(options)
    trainer.save()
    options.initial = options.weights
    started = Trainer(options)
    images = torch.from_numpy(started.faces.images[started.rows])
    outputs = embed(started.students[0].network, images.numpy(), amp=False)
    directions = started.targets.of(torch.from_numpy(started.rows))
    fitted, random = (
        (outputs * (directions @ run.students[0].map)).sum(1).mean() for run in (started, trainer)
    )
    assert fitted > random + 0.02


def test_without_a_teacher_the_people_are_what_is_learned(options):
    options.teacher, options.cosface = [], 1.0
    trainer = Trainer(options)
    head = trainer.students[0].head
    before = head.centres.clone()
    assert set(trainer.train_step()) == {"cosface"}
    assert not torch.equal(head.centres, before)


class Member(torch.nn.Module):
    """A member of the live teacher: one random projection of the picture reduced to 4×4 colours."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.nn.Parameter(torch.randn(48, 300, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 28).flatten(1) @ self.matrix


def test_the_live_teacher_is_asked_about_recombined_faces_before_their_augmentation(
    options, monkeypatch
):
    monkeypatch.setattr(targets, "edgeface", lambda _: Member(1))
    monkeypatch.setattr(targets, "Reidentification", lambda _: Member(2))
    options.live, options.teacher, options.recombine = ["a", "b"], [], 0.5
    for trainer in (Trainer(options), Trainer(options)):  # the second reads the cache
        losses = trainer.train_step()
    assert set(losses) == {"direction", "similarity", "cosface"}
    batch = trainer.batches.take(0, 112)
    assert batch.recombined.places.tolist() == [0, 2]
    clean = torch.from_numpy(trainer.faces.images[batch.rows.numpy()])
    differs = (batch.recombined.crops + 1) * 127.5 - clean[[0, 2]].permute(0, 3, 1, 2)
    assert (differs.flatten(1).abs().mean(1) > 1).all()
    given = trainer.targets.of(batch.rows, None, batch.recombined)
    expected = trainer.targets.of(batch.rows)
    torch.testing.assert_close(given[[1, 3]], expected[[1, 3]])
    asked = trainer.targets.teacher(batch.recombined.crops)
    torch.testing.assert_close(given[[0, 2]], asked)
    on_gpu = GpuBatches(
        trainer.faces, trainer.rows, 4, 5, 0.5, trainer.device, trainer.batches.partners
    )
    assert torch.equal(on_gpu.take(0, 112).recombined.crops, batch.recombined.crops)


def test_faces_are_recombined_only_for_a_live_teacher(pack, teacher, tmp_path):
    command = ["mobilenetv3_large", "--pack", str(pack), "--checkpoint", str(tmp_path / "run.pt")]
    command += ["--steps", "1", "--teacher", str(teacher), "--recombine", "0.5"]
    with pytest.raises(SystemExit, match="give --live"):
        training.main(command)


def test_two_processes_train_one_network(pack, teacher, tmp_path):
    """The gradients are averaged, so both end with the same weights; one file is written."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "training.train"]
    command += ["mobilenetv3_large", "--pack", str(pack), "--teacher", str(teacher)]
    command += ["--steps", "2", "--batch", "4", "--sizes", "32", "--no-amp", "--device", "cpu"]
    command += ["--checkpoint", str(tmp_path / "run.pt"), "--save-minutes", "0"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout.count("finished after 2 steps") == 1
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 2


def test_batches_of_both_kinds_depend_on_seed_and_step_alone(options):
    trainer = Trainer(options)
    given = (trainer.faces, trainer.rows, 4, 1, 0.5)
    processor, other = ProcessorBatches(*given), ProcessorBatches(*given)
    graphic = GpuBatches(*given, torch.device("cpu"))
    third = [processor.take(step, 48) for step in range(3)][2]
    assert third.images.shape == (4, 3, 48, 48)
    for batch in (other.take(2, 48), processor.take(2, 48)):
        assert torch.equal(batch.images, third.images) and torch.equal(batch.rows, third.rows)
    on_gpu = graphic.take(2, 112)
    assert torch.equal(on_gpu.rows, third.rows) and on_gpu.images.shape == (4, 3, 112, 112)
    assert torch.equal(graphic.take(2, 112).images, on_gpu.images)
    rounds = [processor.take(step, 48).rows for step in range(len(trainer.rows) // 4)]
    assert len(torch.cat(rounds).unique()) == len(trainer.rows)


def test_the_prepared_run_decodes_trains_exports_and_goes_on(
    crops, teacher, tmp_path, monkeypatch, capsys
):
    """The one-command GPU run, on the CPU."""
    monkeypatch.setattr(
        Trainer,
        "_batches",
        lambda self: GpuBatches(self.faces, self.rows, 4, 1, 0.3, self.device),
    )
    command = ["mobilenetv3_large", "cosface_resnet50"]
    command += ["--sources", str(crops), "--into", str(tmp_path / "run")]
    command += ["--teacher", str(teacher), "--recombine", "0", "--batch", "4", "--sizes", "32"]
    command += ["--device", "cpu"]
    gpu.main([*command, "--steps", "1"])
    first = load_file(tmp_path / "run" / "mobilenetv3_large.safetensors")
    assert (tmp_path / "run" / "resnet50_cosface.safetensors").exists()
    gpu.main([*command, "--steps", "2", "--no-amp"])
    second = load_file(tmp_path / "run" / "mobilenetv3_large.safetensors")
    assert not torch.equal(first["features.0.0.weight"], second["features.0.0.weight"])
    said = capsys.readouterr().out
    assert "24 crops of 6 people" in said
    assert "cosface_resnet50 direction" in said
    assert "resumed at step 1" in said and "finished after 2 steps" in said


def test_a_diverged_run_ends_before_it_is_saved(options, monkeypatch):
    trainer = Trainer(options)
    monkeypatch.setattr(trainer, "train_step", lambda: {"direction": torch.tensor(torch.nan)})
    monkeypatch.setattr(trainer, "progress", lambda: 0.0 if not trainer.seconds else 1.0)
    with pytest.raises(SystemExit, match=r"Lower --rate"):
        train(trainer)
    assert not options.checkpoint.exists()


def test_nothing_to_learn_from_is_an_error(pack, tmp_path):
    command = ["mobilenetv3_large", "--pack", str(pack), "--checkpoint", str(tmp_path / "run.pt")]
    with pytest.raises(SystemExit, match="Nothing to learn from"):
        training.main([*command, "--steps", "1", "--cosface", "0"])


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(done) for done in (0.0, 0.015, 0.03, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1)
    assert rates[2] > rates[3] > rates[4] == pytest.approx(0.01)


def test_sizes_take_their_shares_of_the_schedule():
    phases = (
        parser()
        .parse_args(
            ["mobilenetv3_large", "--pack", "p", "--checkpoint", "c", "--steps", "1"]
            + ["--sizes", "64:0.6", "112:0.4"]
        )
        .sizes
    )
    assert phases == [(64, 0.6), (112, 0.4)]
    assert [size_at(done, phases) for done in (0, 0.59, 0.61, 1.0)] == [64, 64, 112, 112]
    assert resize(torch.zeros(2, 3, 112, 112), 64).shape == (2, 3, 64, 64)


def test_average_moves_by_its_share():
    network = torch.nn.BatchNorm1d(1)
    current = network.state_dict()
    average = {name: torch.zeros_like(value) for name, value in current.items()}
    update_average(average, current, decay=0.75)
    assert average["weight"].item() == average["running_var"].item() == 0.25
    assert average["bias"].item() == 0
