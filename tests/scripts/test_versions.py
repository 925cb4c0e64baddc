import pytest

from theodolite.scripts.versions import cache_key, class_names, sources, threads


def _package(root):
    files = {
        "modules/__init__.py": "from .nets import Net\nfrom .other import Other",
        "modules/nets.py": "from .layers import Layer\nclass Net: ...",
        "modules/layers.py": "class Layer: ...",
        "modules/other.py": "class Other: ...",
        "callbacks/__init__.py": "",
        "callbacks/table.py": "from ..modules import Net\nclass Table: ...",
        "datamodules/__init__.py": "",
        "datamodules/far.py": "from ..modules.other import Other\nfrom . import near\nclass Far: ...",
        "datamodules/near.py": "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"Net"}, ["modules/layers.py", "modules/nets.py"]),
        ({"Table"}, ["callbacks/table.py", "modules/layers.py", "modules/nets.py"]),
        ({"Far"}, ["datamodules/far.py", "datamodules/near.py", "modules/other.py"]),
        ({"Adam"}, []),
    ],
)
def test_sources_follow_imports_through_packages_and_no_further(tmp_path, names, expected):
    root = _package(tmp_path)
    assert [path.relative_to(root).as_posix() for path in sources(names, root)] == expected


def test_class_names_are_found_at_any_depth():
    config = {"model": {"class_path": "a.b.Task", "init_args": {"net": {"class_path": "Net"}}}, "trainer": {
        "callbacks": [{"class_path": "c.Table"}], "logger": None}}  # fmt: skip
    assert class_names(config) == {"Task", "Net", "Table"}


def test_cache_key_ignores_places_and_sees_code_config_and_command(tmp_path):
    source = tmp_path / "modules" / "nets.py"
    source.parent.mkdir()
    source.write_text("class Net: ...")
    config = "model: {class_path: theodolite.modules.Net}\n"
    keys = [cache_key(config + "run_id: a\n", "fit", tmp_path), cache_key(config + "run_id: b\n", "fit", tmp_path)]
    keys += [cache_key(config, "test", tmp_path), cache_key(config + "trainer: {max_epochs: 2}", "fit", tmp_path)]
    source.write_text("class Net: pass")
    keys += [cache_key(config, "fit", tmp_path)]
    (source.parent / "other.py").write_text("class Other: ...")
    keys += [cache_key(config, "fit", tmp_path)]
    assert keys[0] == keys[1]
    assert keys[4] == keys[5]
    assert len(set(keys)) == 4


def test_threads_follow_openmp(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert threads() >= 1
