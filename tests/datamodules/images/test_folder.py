"""Folders of photographs: labels, cuts, and the super-classes of Restricted ImageNet."""

import numpy as np
import pytest
import torch
from PIL import Image

from theodolite.datamodules import ImageFolderDataModule
from theodolite.datamodules.images.folder import RESTRICTED_IMAGENET, middle_box, random_box


def write_folders(root, names, count=4, size=(40, 24)):
    """Write one-coloured photographs: class number c has red value 10 c."""
    for folder in ("train", "val"):
        for number, name in enumerate(names):
            (root / folder / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (10 * number, i, 200)).save(root / folder / name / f"{i}.png")


def test_labels_follow_the_folders_and_images_the_size(tmp_path):
    write_folders(tmp_path, ["ant", "bee", "cow"])
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    data = ImageFolderDataModule(str(tmp_path), image_size=16, val_samples=3, batch_size=5, num_workers=0)
    assert data.class_names == ["ant", "bee", "cow"]
    assert data.input_shape == (3, 16, 16)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [9, 3, 12]
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch.x.shape[1:] == (3, 16, 16)
            torch.testing.assert_close(batch.x[:, 0, 8, 8] * 255, 10.0 * batch.y)
    swapped = ImageFolderDataModule(str(tmp_path), classes=["cow", "ant"], val_samples=0, num_workers=0)
    batch = next(iter(swapped.test_dataloader()))
    torch.testing.assert_close(batch.x[:, 0, 8, 8] * 255, 20.0 * (1 - batch.y))


def test_test_images_are_the_middle_and_training_images_change_with_the_epoch(tmp_path):
    write_folders(tmp_path, ["ant", "bee"])
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    for folder in ("train", "val"):
        Image.fromarray(ramp).save(tmp_path / folder / "ant" / "0.png")
    data = ImageFolderDataModule(str(tmp_path), image_size=56, val_samples=0, num_workers=0)
    test = data.dataset("test")[0].x * 255
    torch.testing.assert_close(test[0, 0], torch.arange(4.0, 60.0))
    train = data.dataset("train")
    place = next(i for i in range(len(train)) if train.paths[i].name == "0.png" and train.paths[i].parent.name == "ant")
    first, again, later = train[place].x, train[place].x, train[place + len(train)].x
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    plain = ImageFolderDataModule(str(tmp_path), image_size=56, val_samples=0, num_workers=0, augment=False)
    assert torch.equal(plain.dataset("train")[place].x, test / 255)


def test_random_boxes_lie_in_the_image_and_cover_the_stated_area():
    rng = np.random.default_rng(0)
    for width, height in ((40, 40), (50, 40)):
        boxes = np.array([random_box((width, height), rng.random(4)) for _ in range(2000)])
        left, top, right, bottom = boxes.T
        assert min(left.min(), top.min()) >= 0
        assert right.max() <= width + 1e-9
        assert bottom.max() <= height + 1e-9
        area = (right - left) * (bottom - top) / (width * height)
        assert 0.07 < area.min() < 0.12
        assert 0.95 < area.max() <= 1 + 1e-9
    assert middle_box((80, 160)) == (5, 45, 75, 115)


def test_restricted_imagenet_joins_classes_and_leaves_out_the_others(tmp_path):
    names = [f"n{number:04d}" for number in range(1000)]
    for folder in ("train", "val"):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
    picture = Image.new("RGB", (8, 8))
    for number in (0, 29, 30, 32, 33, 151, 268, 269, 319):
        for folder in ("train", "val"):
            picture.save(tmp_path / folder / names[number] / "0.png")
    data = ImageFolderDataModule(
        str(tmp_path), preset="restricted_imagenet", image_size=8, val_samples=0, num_workers=0
    )
    assert data.num_classes == 9
    dataset = data.dataset("test")
    found = {int(path.parent.name[1:]): data.class_names[label] for path, label in zip(dataset.paths, dataset.labels)}
    assert found == {30: "frog", 32: "frog", 33: "turtle", 151: "dog", 268: "dog", 319: "insect"}
    assert (
        sum(last - first + 1 for first, last in RESTRICTED_IMAGENET.values()) == 118 + 5 + 3 + 5 + 21 + 18 + 9 + 4 + 20
    )


def test_bad_folders_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ImageFolderDataModule\(data_dir=.*no folders of classes"):
        ImageFolderDataModule(str(tmp_path))
    write_folders(tmp_path, ["ant", "bee"])
    with pytest.raises(ValueError, match="has 2 folders; it must be ImageNet's 1000"):
        ImageFolderDataModule(str(tmp_path), preset="restricted_imagenet")
    with pytest.raises(FileNotFoundError, match="no images of these classes in test"):
        ImageFolderDataModule(str(tmp_path), test_folder="test").dataset("test")
    with pytest.raises(ValueError, match=r"image_size=0\): must be at least 1"):
        ImageFolderDataModule(str(tmp_path), image_size=0)
