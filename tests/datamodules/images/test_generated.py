"""Sets that a model makes: kills, damage, ranks and new settings leave them right."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from theodolite.datamodules import ImageFolderDataModule, RelabeledDataModule
from theodolite.modules.attacks import PGD

from .made_by_hand import Dots, attack, relabeled, robustified, whole, write_checkpoint


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    folders.append(robustified(tmp_path, bfloat16=True).records.folder)
    assert len(set(folders)) == len(variants) + 3
    same = [{"seed": 5}, {"batch_size": 3}, {"crop_padding": 1}, {"settings": attack(name="mine")}]
    assert {relabeled(tmp_path, **variant).records.folder for variant in same} == {folders[-3]}
    settings = json.loads((folders[3] / "settings.json").read_text())
    assert settings["attack"]["steps"] == 6
    assert settings["targets"] == "next"


def test_a_set_made_of_what_a_set_serves_knows_what_that_is(tmp_path):
    """Controls, and what is kept, share one set on disk, but serve other images of it."""
    write_checkpoint(tmp_path / "model.ckpt")
    served = [{}, {"control": "unperturbed"}, {"control": "noise"}, {"keep": "wrong"}]
    first = [relabeled(tmp_path, **options) for options in served]
    assert len({each.records.folder for each in first}) == 1
    second = [relabeled(tmp_path, source=each) for each in first]
    assert len({each.records.folder for each in second}) == 4
    for one, other in zip(first, second, strict=True):
        before, after = whole(one.dataset("train")), whole(other.dataset("train"))
        assert torch.linalg.vector_norm((after.x - before.x).flatten(1), dim=1).max() <= 0.5 * (1 + 1e-5)


def test_runs_that_need_a_set_at_the_same_time_share_the_work(tmp_path):
    """A second run makes the whole set while the first makes its first shard: that is then the only one it makes."""
    data, other, made, original = relabeled(tmp_path), relabeled(tmp_path), [], RelabeledDataModule._make_shard
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/model.ckpt").write_bytes((tmp_path / "model.ckpt").read_bytes())

    def make(self, model, records, shard):
        made.append(shard)
        if len(made) == 1:
            other.setup("fit")
        return original(self, model, records, shard)

    data._make_shard = make.__get__(data)
    data.setup("fit")
    assert len(made) == 1
    assert contents(data.records.folder) == contents(relabeled(tmp_path / "alone").records.folder)


def test_making_a_set_draws_nothing_from_the_global_generator(tmp_path):
    write_checkpoint(tmp_path / "model.ckpt")
    state = torch.get_rng_state()
    relabeled(tmp_path).setup("fit")
    assert torch.equal(torch.get_rng_state(), state)


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
    with pytest.raises(ValueError, match=r"model.ckpt'\): it does not give an ImageClassifier \("):
        relabeled(tmp_path).setup("fit")
    for damaged in ((tmp_path / "model.ckpt").read_bytes()[:900], b"text"):
        (tmp_path / "model.ckpt").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.ckpt'\): it does not give an ImageClassifier \("):
            relabeled(tmp_path).setup("fit")
    with pytest.raises(ValueError, match=r"\(source.validate_on='train'\): the source must have its own"):
        relabeled(tmp_path, source=Dots(val_samples=23, validate_on="train"))
