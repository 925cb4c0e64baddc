"""Shards: read as written, and every kind of damage is seen."""

import pickle
import subprocess

import numpy as np
import pytest

from theodolite.datamodules.images.shards import ShardedRecords, file_digest

DTYPE = np.dtype([("image", "<f4", (2, 3)), ("label", "<i8")])


@pytest.fixture
def records(tmp_path):
    made = ShardedRecords(tmp_path / "set", DTYPE, size=10, shard_size=4)
    rng = np.random.default_rng(0)
    for shard in range(made.num_shards):
        numbers = made.numbers(shard)
        content = np.empty(len(numbers), DTYPE)
        content["label"] = list(numbers)
        content["image"] = rng.random((len(numbers), 2, 3))
        made.write(shard, content)
    return made


def test_records_are_read_by_number_in_any_order(records):
    assert [list(records.numbers(shard)) for shard in range(records.num_shards)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]  # fmt: skip
    numbers = np.array([9, 0, 4, 4, 3])
    assert records.field("label", numbers).tolist() == numbers.tolist()
    images = records.field("image", np.arange(10))
    assert np.array_equal(records.field("image", numbers), images[numbers])
    again = pickle.loads(pickle.dumps(records))
    assert np.array_equal(again.field("image", numbers), images[numbers])
    assert len(pickle.dumps(records)) < 2000  # the images stay on the disk


def test_checksums_are_those_of_sha256sum(records):
    subprocess.run(["sha256sum", "-c", "shard-00001.sha256"], cwd=records.folder, check=True, capture_output=True)
    assert not list(records.folder.glob(".*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no checksum", "of another shard", "of another type"])
def test_damage_is_seen(records, damage):
    path = records.path(1)
    assert records.is_whole(1)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "remove":
        path.unlink()
    elif damage == "no checksum":
        path.with_suffix(".sha256").unlink()
    elif damage == "of another shard":
        path.write_bytes(records.path(2).read_bytes())
        path.with_suffix(".sha256").write_text(file_digest(path))
    else:
        np.save(path, np.zeros(4))
        path.with_suffix(".sha256").write_text(file_digest(path))
    assert not records.is_whole(1)
    assert records.is_whole(0)
