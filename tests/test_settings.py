"""Nested settings: two owners may have settings of one name, in Python, on the command line and in YAML."""

import gc
import sys
import threading

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selftaught.cli import main
from selftaught.config import settings
from selftaught.config.settings import Settings
from selftaught.errors import UserError
from selftaught.pretext import TASKS
from selftaught.runs.sections import SECTIONS, flatten, nest

TINY = ("--size", "16", "--batch-size", "4", "--precision", "32", "--threads", "1", "--steps", "2")


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    for name, place in (("byol", "modern_toys:BYOL"), ("masked", "modern_toys:MaskedImage")):
        monkeypatch.setitem(TASKS, name, place)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def test_two_owners_may_have_settings_of_one_name():
    chosen = Settings.of(task="byol", **{"task.momentum": 0.5, "optimizer.momentum": 0.8})
    assert (chosen.task["momentum"], chosen.optimization.momentum) == (0.5, 0.8)
    nested = Settings.of(task={"name": "byol", "momentum": 0.5}, optimizer={"momentum": 0.8})
    assert nested == chosen
    default = Settings.of(task="byol")
    assert (default.task["momentum"], default.optimization.momentum) == (0.9, 0.9)


def test_a_name_that_two_owners_have_is_ambiguous():
    with pytest.raises(UserError, match=r"momentum is ambiguous: choose task\.momentum and optimizer\.momentum"):
        Settings.of(task="byol", momentum=0.5)
    assert Settings.of(task="rotation", momentum=0.5).optimization.momentum == 0.5


def test_settings_of_one_name_train_are_stored_and_repeated(images, tmp_path):
    out = tmp_path / "run"
    given = ["pretrain", str(images), "--task", "masked", "--encoder", "vit", "--encoder.patch", "2", *TINY]
    small = ["--depth", "1", "--encoder.width", "16", "--heads", "2"]
    assert main([*given, "--task.patch", "2", *small, "--out", str(out)]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["task"]["name"], config["task"]["patch"], config["encoder"]["patch"]) == ("masked", 2, 2)
    assert config["encoder"]["width"] == 16
    assert config["optimizer"]["name"] == "adamw"
    assert main(["pretrain", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("config.yaml", "encoder.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    assert main(["pretrain", "--resume", "--out", str(out), "--steps", "2"]) == 0
    extended = yaml.safe_load((out / "config.yaml").read_text())
    assert (extended["steps"], extended["task"]["patch"]) == (4, 2)


def test_a_short_flag_exists_only_where_it_is_unambiguous(images, tmp_path, capsys):
    given = ["pretrain", str(images), "--task", "masked", "--encoder", "vit", *TINY, "--out", str(tmp_path / "run")]
    assert main([*given, "--patch", "2"]) == 2
    assert "--patch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        raise SystemExit(main(["pretrain", "--task", "masked", "--encoder", "vit", "--help"]))
    text = capsys.readouterr().out
    assert "--task.patch" in text
    assert "--encoder.patch" in text
    assert "--patch" not in text.replace("--task.patch", "").replace("--encoder.patch", "")


def test_a_flat_config_with_unique_names_is_accepted(images, tmp_path):
    path = tmp_path / "flat.yaml"
    path.write_text(f"data: [{images}]\ntask: rotation\nangles: [0, 180]\nlearning_rate: 0.01\n")
    out = tmp_path / "run"
    assert main(["pretrain", "--config", str(path), *TINY, "--out", str(out)]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["task"] == {**config["task"], "name": "rotation", "angles": [0, 180]}
    assert config["optimizer"]["learning_rate"] == 0.01


KEYS = st.sampled_from(["steps", "seed", *(f"{section}.{name}" for section in SECTIONS for name in ("a", "b"))])


@given(st.dictionaries(KEYS, st.integers()))
def test_nesting_is_undone_by_flattening(flat):
    named = {section: section for section in SECTIONS[:3] if any(key.startswith(f"{section}.") for key in flat)}
    assert flatten(nest({**named, **flat})) == {**named, **flat}


def test_settings_can_be_read_in_threads():
    """Descriptions come from the source of the classes. A garbage collection while it is parsed switches threads."""

    class Slow:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            sum(range(200))

    errors: list[BaseException] = []

    def read(task: str) -> None:
        try:
            for _ in range(4):
                _ = [Slow() for _ in range(50)]
                settings._parse_fields.cache_clear()
                settings.offered(task, "convnet")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(task,)) for task in ("rotation", "jigsaw", "npid", "pirl")]
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5)
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert errors == []
