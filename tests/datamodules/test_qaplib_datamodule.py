"""QAPLIB as a datamodule: choice of problems, best known values, download."""

import io
import tarfile

import pytest
import torch

from theodolite.datamodules import QAPLIBDataModule, qaplib_datamodule

TEXTS = {
    "one3": ("3  0 1 2  1 0 3  2 3 0   0 4 5  4 0 6  5 6 0", "3 56  3 2 1"),
    "two2": ("2  0 1  2 0   0 3  4 0", None),
    "tai10a": ("10 " + " ".join(["1"] * 200), None),
}


def write_folder(folder, names=tuple(TEXTS)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for suffix, text in zip((".dat", ".sln"), TEXTS[name]):
            if text is not None:
                (folder / f"{name}{suffix}").write_text(text)


def write_archives(server):
    for path, column, suffix in (("data.d/qapdata.tar.gz", 0, ".dat"), ("soln.d/qapsoln.tar.gz", 1, ".sln")):
        (server / path).parent.mkdir(parents=True)
        with tarfile.open(server / path, "w:gz") as archive:
            for name, texts in TEXTS.items():
                if texts[column] is not None:
                    member = tarfile.TarInfo(f"some/folder/{name}{suffix}")
                    member.size = len(texts[column])
                    archive.addfile(member, io.BytesIO(texts[column].encode()))


def names(data):
    data.prepare_data()
    data.setup()
    return [instance.name for instance in data.instances]


def test_problems_come_one_by_one_with_what_is_known_of_them(tmp_path):
    write_folder(tmp_path)
    data = QAPLIBDataModule(str(tmp_path))
    batches = list(data.test_dataloader())
    assert [batch.sample_id.tolist() for batch in batches] == [[0], [1], [2]]
    assert all(batch.minimize and batch.num_pairs == 1 and batch.permutation is None for batch in batches)
    assert batches[2].first.dense.tolist() == [[[0, 1], [2, 0]]]
    assert batches[2].second.dense.dtype == torch.float64
    found = [(data.instance(i).name, data.instance(i).best_known) for i in range(3)]
    assert found == [("one3", 56.0), ("tai10a", 135028.0), ("two2", None)]
    assert data.instance(0).first_names == ["1", "2", "3"]
    assert data.instance(0).minimize
    assert len(list(data.predict_dataloader())) == 3


def test_problems_are_chosen_by_name_size_and_symmetry(tmp_path):
    write_folder(tmp_path)
    folder = str(tmp_path)
    assert names(QAPLIBDataModule(folder)) == ["one3", "tai10a", "two2"]
    assert names(QAPLIBDataModule(folder, instances=["two2", "one3"])) == ["two2", "one3"]
    assert names(QAPLIBDataModule(folder, max_size=3)) == ["one3", "two2"]
    assert names(QAPLIBDataModule(folder, symmetric_only=True)) == ["one3", "tai10a"]


def test_what_is_absent_is_downloaded_whole_or_not_at_all(tmp_path, monkeypatch):
    write_archives(tmp_path / "server")
    monkeypatch.setattr(qaplib_datamodule, "URL", (tmp_path / "server").as_uri())
    data = QAPLIBDataModule(str(tmp_path / "mine"))
    assert names(data) == ["one3", "tai10a", "two2"]
    assert data.instance(0).best_known == 56
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["qapdata.tar.gz", "qapsoln.tar.gz"]

    write_folder(tmp_path / "part", ["two2"])
    assert names(QAPLIBDataModule(str(tmp_path / "part"))) == ["two2"]
    assert names(QAPLIBDataModule(str(tmp_path / "part"), instances=["one3"])) == ["one3"]

    monkeypatch.setattr(qaplib_datamodule, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(FileNotFoundError, match=r"not in .*other.*nowhere.*put it there") as error:
        QAPLIBDataModule(str(tmp_path / "other")).prepare_data()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "other").exists()


def test_damaged_archives_and_unknown_names_are_errors(tmp_path):
    write_folder(tmp_path, ["two2"])
    with pytest.raises(FileNotFoundError, match="three4 is not there"):
        QAPLIBDataModule(str(tmp_path), instances=["two2", "three4"]).setup()
    with pytest.raises(FileNotFoundError, match="any problem is not there"):
        QAPLIBDataModule(str(tmp_path / "empty")).setup()
    write_archives(tmp_path / "server")
    whole = (tmp_path / "server" / "data.d" / "qapdata.tar.gz").read_bytes()
    for damaged in (b"\x1f\x8bnonsense", b"nonsense", whole[:-30], whole[:40] + b"?" * 9 + whole[49:]):
        (tmp_path / "qapdata.tar.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"qapdata.tar.gz: the archive is damaged .*delete the file") as error:
            QAPLIBDataModule(str(tmp_path)).setup()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"instances": []}, r"instances=\[\]"),
        ({"max_size": 0}, "max_size=0"),
        ({"max_size": 1}, "none of the 3 problems is left; raise max_size"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, arguments, message):
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        QAPLIBDataModule(str(tmp_path), **arguments).setup()
    assert "\n" not in str(error.value)


def test_the_real_library(data_dir):
    data = QAPLIBDataModule(str(data_dir / "qaplib"), max_size=40, symmetric_only=True)
    data.prepare_data()
    data.setup()
    assert len(data.instances) == 75
    assert all(instance.best_known is not None for instance in data.instances)
    best = {instance.name: instance.best_known for instance in data.instances}
    assert best["kra32"] == 88700
    assert best["tai10a"] == 135028
    assert best["esc16a"] == 68
