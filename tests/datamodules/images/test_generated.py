"""Relabeled and robustified sets: what is in them, and that kills, damage, ranks and new settings leave them right."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from theodolite.datamodules import ImageFolderDataModule, RelabeledDataModule, RobustifiedDataModule
from theodolite.datamodules.images.relabeled import draw_targets
from theodolite.datamodules.images.robustified import draw_others
from theodolite.modules.attacks import PGD
from theodolite.modules.classification import ImageClassifier, Representation, SmallCNN

from .made_by_hand import Dots, write_checkpoint, write_linear_checkpoint


def attack(**kwargs):
    return PGD(**{"norm": "l2", "eps": 0.5, "steps": 5, "random_start": False, "targeted": True, **kwargs})


def relabeled(folder, source=None, settings=None, no_attack=False, **kwargs):
    if not (folder / "model.ckpt").is_file():
        write_checkpoint(folder / "model.ckpt")
    source = source or Dots(val_samples=23)
    settings = None if no_attack else settings or attack()
    return RelabeledDataModule(
        source, str(folder / "model.ckpt"), settings, data_dir=str(folder / "sets"),
        **{"shard_size": 20, "targets": "next", **kwargs},
    )  # fmt: skip


def robustified(folder, **kwargs):
    if not (folder / "model.ckpt").is_file():
        write_checkpoint(folder / "model.ckpt")
    return RobustifiedDataModule(
        Dots(val_samples=23), str(folder / "model.ckpt"), data_dir=str(folder / "sets"),
        **{"shard_size": 20, "steps": 30, "step_size": 0.05, **kwargs},
    )  # fmt: skip


def whole(dataset):
    return dataset.__getitems__(range(len(dataset)))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_images_are_attacked_towards_their_new_labels_and_the_test_set_is_as_it_was(tmp_path):
    data = relabeled(tmp_path)
    model = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    first = 0
    for split in ("train", "val"):
        before, after = whole(data.source.dataset(split)), whole(data.dataset(split))
        assert torch.equal(after.y, (before.y + 1) % 3)
        moved = torch.linalg.vector_norm((after.x - before.x).flatten(1), dim=1)
        assert 0.3 < moved.max() <= 0.5 * (1 + 1e-5)
        assert torch.equal(after.sample_id, before.sample_id)
        numbers = torch.arange(first, first + len(before.y))
        first += len(before.y)
        again = attack()(model, before.x, after.y, sample_id=numbers)
        torch.testing.assert_close(after.x, again, rtol=0, atol=1e-4)  # other batches, other roundings
    assert torch.equal(whole(data.dataset("test")).x, whole(data.source.dataset("test")).x)
    assert torch.equal(whole(data.dataset("test")).y, whole(data.source.dataset("test")).y)
    assert (data.num_classes, data.input_shape) == (3, (1, 6, 6))


def test_statistics_are_those_of_the_model_on_the_stored_images(tmp_path):
    data = relabeled(tmp_path, targets="random")
    model = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    before = torch.cat([whole(data.source.dataset(split)).y for split in ("train", "val")])
    parts = [whole(data.dataset(split)) for split in ("train", "val")]
    predicted = torch.cat([model(part.x).argmax(1) for part in parts])
    labels = torch.cat([part.y for part in parts])
    found = data.statistics()
    assert found["fooled"] == pytest.approx((predicted == labels).double().mean().item())
    assert found["still_correct"] == pytest.approx((predicted == before).double().mean().item())
    assert found["label_kept"] == pytest.approx((labels == before).double().mean().item())
    assert "% fool the model" in data.report()


def test_targets_follow_their_rules_whatever_the_batch():
    numbers = torch.arange(30_000)
    labels = numbers % 3
    drawn = {rule: draw_targets(labels, numbers, rule, 3, seed=0) for rule in ("random", "next", "other")}
    assert torch.equal(drawn["next"], (labels + 1) % 3)
    assert (drawn["other"] != labels).all()
    part = slice(17, 40)
    for rule, targets in drawn.items():
        assert torch.equal(draw_targets(labels[part], numbers[part], rule, 3, seed=0), targets[part])
        if rule != "next":
            assert not torch.equal(draw_targets(labels, numbers, rule, 3, seed=1), targets)
    for rule, choices in (("random", 3), ("other", 2)):
        shift = (drawn[rule] - labels) % 3
        shares = torch.stack([((labels == y) & (shift == s)).sum() for y in range(3) for s in range(3 - choices, 3)])
        expected = 10_000 / choices
        assert ((shares - expected).abs() < 4 * expected**0.5).all()  # 4 standard deviations
    assert torch.equal(draw_targets(labels % 2, numbers, "other", 2, seed=0), 1 - labels % 2)


def test_controls_serve_the_same_labels_with_other_images(tmp_path):
    data = relabeled(tmp_path)
    after = whole(data.dataset("train"))
    before = whole(data.source.dataset("train"))
    plain = whole(relabeled(tmp_path, control="unperturbed").dataset("train"))
    assert torch.equal(plain.x, before.x)
    assert torch.equal(plain.y, after.y)
    noisy = relabeled(tmp_path, control="noise")
    noise = whole(noisy.dataset("train"))
    assert torch.equal(noise.y, after.y)
    lengths, expected = (torch.linalg.vector_norm((x - before.x).flatten(1), dim=1) for x in (noise.x, after.x))
    inside = ((noise.x > 0) & (noise.x < 1)).flatten(1).all(1)
    torch.testing.assert_close(lengths[inside], expected[inside], rtol=1e-4, atol=1e-6)
    assert (lengths <= expected + 1e-6).all()
    assert inside.sum() > 20
    assert torch.equal(noisy.dataset("train").__getitems__([7, 3]).x, noise.x[[7, 3]])
    assert len(list((tmp_path / "sets").iterdir())) == 1  # no attack was run again


def untargeted(folder, **kwargs):
    write_linear_checkpoint(folder / "model.ckpt")
    settings = {"settings": attack(targeted=False), "targets": "predicted", "keep": "fooled", **kwargs}
    return relabeled(folder, **settings)


def test_only_images_that_fool_the_model_are_kept_with_its_wrong_label(tmp_path):
    data, everything = untargeted(tmp_path), untargeted(tmp_path, keep="all")
    model = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    for split in ("train", "val"):
        before, made = whole(data.source.dataset(split)), whole(everything.dataset(split))
        assert torch.equal(made.y, model(made.x).argmax(1))
        expected = (model(before.x).argmax(1) == before.y) & (made.y != before.y)
        assert 0 < expected.sum() < len(before.y)
        after = whole(data.dataset(split))
        assert torch.equal(after.x, made.x[expected])
        assert torch.equal(after.y, made.y[expected])
        assert torch.equal(after.sample_id, torch.arange(int(expected.sum())))
        for control, images in (("unperturbed", before.x[expected]), ("noise", None)):
            other = whole(untargeted(tmp_path, control=control).dataset(split))
            assert torch.equal(other.y, after.y)
            assert images is None or torch.equal(other.x, images)
    assert data.statistics()["fooled"] == 1
    assert data.statistics()["kept"] < 1 == everything.statistics()["kept"]
    assert len(list((tmp_path / "sets").iterdir())) == 1
    assert sum(len(batch.y) for batch in data.train_dataloader()) == len(data.dataset("train"))


def test_targets_that_are_reached_from_known_images_are_kept(tmp_path):
    write_linear_checkpoint(tmp_path / "model.ckpt")
    data = relabeled(tmp_path, targets="random", keep="fooled")
    label, original = data.field("label"), data.source_labels.numpy()
    expected = (data.field("before") == original) & (data.field("predicted") == label) & (label != original)
    assert np.array_equal(data.kept(), expected)
    assert 0 < expected.sum() < len(expected)


def test_a_weak_models_errors_are_kept_as_they_are(tmp_path):
    write_linear_checkpoint(tmp_path / "model.ckpt")
    data = relabeled(tmp_path, targets="predicted", keep="wrong", no_attack=True)
    model = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    before, after = whole(data.source.dataset("train")), whole(data.dataset("train"))
    seen = model(before.x).argmax(1)
    assert 0 < (seen != before.y).sum() < len(seen)
    assert torch.equal(after.x, before.x[seen != before.y])
    assert torch.equal(after.y, seen[seen != before.y])
    assert data.statistics()["moved"] == 0


def test_a_set_of_which_nothing_is_kept_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"\(keep='fooled'\): none of the 100 images \(train\) is kept; .* % fool"):
        untargeted(tmp_path, settings=attack(targeted=False, eps=0.0)).dataset("train")


def test_a_robustified_image_is_represented_like_its_original_and_starts_from_another(tmp_path):
    data = robustified(tmp_path)
    represent = Representation(ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval())
    before, after = whole(data.source.dataset("train")), whole(data.dataset("train"))
    assert torch.equal(after.y, before.y)
    others = before.x[draw_others(torch.arange(len(before.y)), len(before.y), 0)]
    with torch.no_grad():
        goal, start, end = (represent(x) for x in (before.x, others, after.x))
    distance = torch.linalg.vector_norm(end - goal, dim=1) / torch.linalg.vector_norm(start - goal, dim=1)
    assert distance.median() < 0.5
    nearer_start = torch.linalg.vector_norm((after.x - others).flatten(1), dim=1) < torch.linalg.vector_norm(
        (after.x - before.x).flatten(1), dim=1
    )
    assert nearer_start.float().mean() > 0.8
    assert after.x.min() >= 0
    assert after.x.max() <= 1
    assert 0 <= data.statistics()["still_correct"] <= 1
    assert not torch.equal(whole(robustified(tmp_path, set_seed=1).dataset("train")).x, after.x)


def test_other_images_are_drawn_evenly_and_never_ones_own():
    numbers = torch.arange(40_000)
    for size in (2, 7):
        own = numbers[:size]
        assert (draw_others(own, size, 0) != own).all()
    drawn = torch.cat([draw_others(torch.arange(5), 5, seed) for seed in range(4000)]).view(4000, 5)
    for number in range(5):
        counts = drawn[:, number].bincount(minlength=5)
        assert counts[number] == 0
        assert ((counts - 1000).abs() < 4 * 1000**0.5).sum() == 4


def test_representation_is_what_the_last_linear_layer_is_fed():
    network = SmallCNN(num_classes=3, input_shape=(1, 6, 6), width=4)
    x = torch.rand(5, 1, 6, 6)
    represent = Representation(ImageClassifier(network, 3))
    torch.testing.assert_close(network[-1](represent(x)), network(x))
    assert not network[-1]._forward_pre_hooks
    with pytest.raises(ValueError, match="Representation: Flatten has no linear layer"):
        Representation(torch.nn.Flatten())


class Killed(BaseException):
    """What no handler catches."""


def killed_at(data, count, how):
    """Make a set be stopped at its shard number ``count``."""
    make, calls = data.make, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == count:
            how()
        return make(*arguments)

    data.make = interrupted
    return calls


def stop():
    raise Killed


@pytest.mark.parametrize("module", [relabeled, robustified])
def test_a_killed_build_goes_on_to_the_identical_set(tmp_path, module):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    write_checkpoint(tmp_path / "whole" / "model.ckpt")
    (tmp_path / "killed" / "model.ckpt").write_bytes((tmp_path / "whole" / "model.ckpt").read_bytes())
    expected = module(tmp_path / "whole")
    calls = killed_at(expected, 0, stop)
    expected.setup("fit")
    assert len(calls) == 7  # 123 images, 20 a shard
    interrupted = module(tmp_path / "killed")
    killed_at(interrupted, 4, stop)
    with pytest.raises(Killed):
        interrupted.setup("fit")
    resumed = module(tmp_path / "killed")
    calls = killed_at(resumed, 0, stop)
    resumed.setup("fit")
    assert len(calls) == 4
    assert resumed.records.folder.name == expected.records.folder.name
    assert contents(resumed.records.folder) == contents(expected.records.folder)
    again = module(tmp_path / "killed")
    calls = killed_at(again, 1, stop)
    again.setup("fit")
    assert not calls


def die_in_the_middle_of_a_write(folder: Path) -> None:
    def half(file, records):
        file.write(b"half of a shard")
        file.flush()
        if len(list(file_names(folder))) == 2:
            os.kill(os.getpid(), 9)
        file.seek(0)
        file.truncate()
        save(file, records)

    save, np.save = np.save, half
    relabeled(folder).setup("fit")


def file_names(folder):
    return (folder / "sets").glob("*/*.npy")


def test_a_process_killed_while_it_writes_leaves_whole_shards_only(tmp_path):
    write_checkpoint(tmp_path / "model.ckpt")
    process = mp.get_context("spawn").Process(target=die_in_the_middle_of_a_write, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert len(list(file_names(tmp_path))) == 2
    data = relabeled(tmp_path)
    calls = killed_at(data, 0, stop)
    data.setup("fit")
    assert len(calls) == 5
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.ckpt").write_bytes((tmp_path / "model.ckpt").read_bytes())
    other = relabeled(tmp_path / "other")
    assert torch.equal(whole(data.dataset("train")).x, whole(other.dataset("train")).x)


def outside(data):
    """Write an image that is too far from its original, with a right checksum."""
    records = data.records.shard(2).copy()
    records["image"][3] = 1 - records["image"][3]
    data.records.write(2, records)


def flipped(data):
    path = data.records.path(2)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [outside, flipped])
def test_a_damaged_shard_is_found_and_made_again(tmp_path, damage):
    data = relabeled(tmp_path)
    expected = contents(data.records.folder)
    damage(data)
    assert contents(data.records.folder) != expected
    again = relabeled(tmp_path)
    calls = killed_at(again, 0, stop)
    again.setup("fit")
    assert len(calls) == 1
    assert contents(again.records.folder) == expected


def test_any_changed_setting_has_a_set_of_its_own(tmp_path):
    write_checkpoint(tmp_path / "model.ckpt")
    variants = [
        {}, {"targets": "random"}, {"set_seed": 1}, {"settings": attack(steps=6)}, {"settings": attack(eps=0.4)},
        {"settings": attack(norm="linf")}, {"source": Dots(val_samples=24)},
        {"source": Dots(val_samples=23, split_seed=1)}, {"source": Dots(val_samples=23, classes=[2, 1, 0])},
    ]  # fmt: skip
    folders = [relabeled(tmp_path, **variant).records.folder for variant in variants]
    write_checkpoint(tmp_path / "model.ckpt", seed=1)
    folders.append(relabeled(tmp_path).records.folder)
    folders.append(robustified(tmp_path).records.folder)
    assert len(set(folders)) == len(variants) + 2
    same = [{"seed": 5}, {"batch_size": 3}, {"crop_padding": 1}, {"settings": attack(name="mine")}]
    assert {relabeled(tmp_path, **variant).records.folder for variant in same} == {folders[-2]}
    settings = json.loads((folders[3] / "settings.json").read_text())
    assert settings["attack"]["steps"] == 6
    assert settings["targets"] == "next"


def build_in_rank(rank: int, port: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    data = relabeled(folder)
    calls = killed_at(data, 0, stop)
    data.setup("fit")
    x = torch.cat([batch.x.flatten() for batch in data.val_dataloader()])
    torch.save((len(calls), len(x)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_share_the_work_and_make_the_same_set(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name / "model.ckpt")
    (tmp_path / "two" / "model.ckpt").write_bytes((tmp_path / "one" / "model.ckpt").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(build_in_rank, (port, tmp_path / "two"), nprocs=2)
    made = [torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1)]
    assert made == [(4, 12 * 36), (3, 11 * 36)]
    one, two = relabeled(tmp_path / "one"), relabeled(tmp_path / "two")
    assert contents(one.records.folder) == contents(two.records.folder)


def test_augmentation_moves_stored_images_too(tmp_path):
    data = relabeled(tmp_path, crop_padding=2)
    plain = relabeled(tmp_path)
    train, size = data.dataset("train"), len(data.dataset("train"))
    assert not torch.equal(train.__getitems__(range(size)).x, train.__getitems__(range(size, 2 * size)).x)
    assert torch.equal(whole(data.dataset("val")).x, whole(plain.dataset("val")).x)


def test_any_image_datamodule_can_be_the_source(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("train", "val"):
        for name in ("ant", "bee", "cow"):
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
    photographs = ImageFolderDataModule(str(tmp_path), image_size=6, val_samples=4, num_workers=0)
    write_checkpoint(tmp_path / "model.ckpt", input_shape=(3, 6, 6))
    first = relabeled(tmp_path, source=photographs)
    before, after = whole(photographs.dataset("train", augmented=False)), whole(first.dataset("train"))
    assert torch.equal(after.y, (before.y + 1) % 3)
    assert 0 < torch.linalg.vector_norm((after.x - before.x).flatten(1), dim=1).max() <= 0.5 * (1 + 1e-5)
    again = relabeled(tmp_path, source=first)  # a generated set is a source like any other
    assert torch.equal(whole(again.dataset("train")).y, (before.y + 2) % 3)
    assert torch.equal(whole(again.dataset("test")).x, whole(photographs.dataset("test")).x)


def test_user_errors_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"RelabeledDataModule\(checkpoint='nowhere.ckpt'\): there is no such"):
        RelabeledDataModule(Dots(), "nowhere.ckpt", attack())
    with pytest.raises(ValueError, match="must have targeted=True"):
        relabeled(tmp_path, settings=PGD())
    with pytest.raises(ValueError, match="must have targeted=False"):
        relabeled(tmp_path, targets="predicted")
    with pytest.raises(ValueError, match=r"keep='some'\): must be one of all, fooled, wrong"):
        relabeled(tmp_path, keep="some")
    with pytest.raises(ValueError, match=r"targets='all'\): must be one of random, next, other"):
        relabeled(tmp_path, targets="all")
    with pytest.raises(ValueError, match=r"RobustifiedDataModule\(step_size=0\): must be positive"):
        robustified(tmp_path, step_size=0)
    with pytest.raises(ValueError, match=r"shard_size=0\): must be at least 1"):
        relabeled(tmp_path, shard_size=0)
    write_checkpoint(tmp_path / "model.ckpt", num_classes=4)
    with pytest.raises(ValueError, match="the checkpoint has 4 classes, the source 3"):
        relabeled(tmp_path).setup("fit")
    content = torch.load(tmp_path / "model.ckpt")
    content["hyper_parameters"] = {"num_classes": 3}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="does not say what its network is"):
        relabeled(tmp_path).setup("fit")
