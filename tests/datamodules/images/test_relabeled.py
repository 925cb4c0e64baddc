"""What is in relabeled sets and their controls."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from theodolite.datamodules.images.augmentation import swap_low_frequencies
from theodolite.datamodules.images.relabeled import draw_targets
from theodolite.modules.classification import ImageClassifier

from .made_by_hand import attack, relabeled, whole, write_checkpoint, write_linear_checkpoint


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


def test_several_models_are_attacked_as_one_that_gives_their_mean_logits(tmp_path):
    others = [str(tmp_path / f"{seed}.ckpt") for seed in (1, 2)]
    models = [write_checkpoint(path, seed=seed) for seed, path in enumerate([tmp_path / "model.ckpt", *others])]
    data = relabeled(tmp_path, others=others)
    before, after = whole(data.source.dataset("train")), whole(data.dataset("train"))

    def together(x):
        return sum(model(x) for model in models) / 3

    again = attack()(together, before.x, after.y, sample_id=torch.arange(len(before.y)))
    torch.testing.assert_close(after.x, again, rtol=0, atol=1e-4)
    predicted = torch.cat([together(whole(data.dataset(split)).x).argmax(1) for split in ("train", "val")])
    assert np.array_equal(data.field("predicted"), predicted.numpy())
    alone, fewer = relabeled(tmp_path), relabeled(tmp_path, others=others[:1])
    assert len({each.fingerprint() for each in (data, alone, fewer)}) == 3
    with pytest.raises(FileNotFoundError, match=r"RelabeledDataModule\(others='nowhere.ckpt'\): there is no such file"):
        relabeled(tmp_path, others=["nowhere.ckpt"])


class Recorder(nn.Module):
    """A model that remembers what it saw."""

    device = torch.device("cpu")

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def test_the_attack_sees_images_shifted_and_mirrored_in_another_way_at_every_step(tmp_path):
    data, still = relabeled(tmp_path, attack_shift=1, attack_flip=True), relabeled(tmp_path)
    assert data.fingerprint() != still.fingerprint()
    model, numbers = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval(), torch.arange(7)
    recorder, original = Recorder(model), whole(data.source.dataset("train")).x[:7]
    made, _ = data.make(recorder, numbers)
    assert len(recorder.seen) == data.attack.steps + 1
    frame = F.pad(original, (1,) * 4)
    moves = [frame[..., i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    moves += [x.flip(-1) for x in moves]
    assert sum(torch.equal(recorder.seen[0], x) for x in moves) == 1  # the attack starts from the image itself
    bounds = [torch.linalg.vector_norm((recorder.seen[-1] - x).flatten(1), dim=1).max() for x in moves]
    # all images were moved alike, and no further than the ball allows
    assert sum(bound <= 0.5 * (1 + 1e-5) for bound in bounds) == 1
    assert not torch.allclose(made, still.make(model, numbers)[0], atol=1e-3)
    split = [data.make(model, part)[0] for part in numbers.split(3)]
    torch.testing.assert_close(torch.cat(split), made, rtol=0, atol=1e-4)  # other batches, other roundings
    moved = {x.flatten(1).sub(recorder.seen[0].flatten(1)).norm().item() > 1.5 for x in recorder.seen}
    assert moved == {False, True}  # further than the ball allows: another movement


def test_a_model_that_does_not_tell_left_from_right_is_attacked_as_if_nothing_were_mirrored(tmp_path):
    class Symmetric(Recorder):
        def forward(self, x):
            return self.model(x) + self.model(x.flip(-1))

    sets = [relabeled(tmp_path, attack_flip=flip) for flip in (False, True)]
    assert sets[0].fingerprint() != sets[1].fingerprint()
    model = Symmetric(ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval())
    made = [data.make(model, torch.arange(9))[0] for data in sets]
    torch.testing.assert_close(*made, rtol=0, atol=1e-4)


def test_training_images_take_their_low_frequencies_from_others_and_nothing_else_changes(tmp_path):
    """Whatever the batch: those of an image drawn from all of the set, another one in every epoch."""
    plain, swapped = relabeled(tmp_path), relabeled(tmp_path, swap_low_frequencies=1.0)
    dataset, own = swapped.dataset("train"), whole(plain.dataset("train"))
    size = len(dataset)
    batch = dataset.__getitems__(range(size))
    assert torch.equal(batch.y, own.y)
    partners = []
    for i in range(size):
        assert torch.equal(dataset[i].x, batch.x[i])
        made = swap_low_frequencies(own.x[i].expand_as(own.x), own.x, 1.0)
        distance = (made - batch.x[i]).abs().amax((1, 2, 3))
        assert distance.min() < 1e-6
        partners.append(int(distance.argmin()))
    assert len(set(partners)) > size / 2
    assert not torch.equal(dataset.__getitems__(range(size, 2 * size)).x, batch.x)
    for split, augmented in (("val", True), ("train", False), ("test", True)):
        assert torch.equal(whole(swapped.dataset(split, augmented)).x, whole(plain.dataset(split, augmented)).x)
    with pytest.raises(ValueError, match=r"\(swap_low_frequencies=2.0\): .* less than a third of the image, 6 x 6"):
        relabeled(tmp_path, swap_low_frequencies=2.0)


def test_a_shift_of_the_attack_that_leaves_nothing_to_see_is_refused(tmp_path):
    for shift in (-1, 6):
        with pytest.raises(ValueError, match=rf"\(attack_shift={shift}\): .* less than the image, 6 x 6"):
            relabeled(tmp_path, attack_shift=shift)


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
    noisy.trainer = lambda: None  # nothing of the run goes to a worker that is not a fork
    sent = pickle.loads(pickle.dumps(noisy.dataset("train")))
    assert torch.equal(sent.__getitems__([7, 3]).x, noise.x[[7, 3]])


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
