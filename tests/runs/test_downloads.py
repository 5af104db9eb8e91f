"""Only what the user names is downloaded, never what the config of a run names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import yaml
from valid_run import TINY

from selftaught import cli
from selftaught.data import cache, named


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The names of what was about to be downloaded."""
    begun: list[str] = []

    def download(name, *rest, **more):
        begun.append(name)
        raise OSError("no network in tests")

    monkeypatch.setattr(named, "_download", download)
    return begun


@pytest.fixture
def run(valid, tmp_path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "run"))


def rewrite(run: Path, **changes: object) -> None:
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_a_data_set_that_only_a_config_names_is_not_downloaded(run, tmp_path, downloads, capsys):
    rewrite(run, data=["food101"])
    ways = (
        ["pretrain", "--resume", "--out", str(run)],
        ["pretrain", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "new")],
        ["audit", str(run)],
    )
    for words in ways:
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "'food101' is not on this machine" in said
        assert "`--data food101`" in said
    assert downloads == []


def test_a_data_set_that_the_user_names_is_downloaded(run, tmp_path, downloads, capsys):
    rewrite(run, data=["food101"])
    for words in (
        ["pretrain", "food101", "--resume", "--out", str(run)],
        ["pretrain", "food101", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "new")],
        ["audit", str(run), "--data", "food101"],
        ["pretrain", "food101", "--out", str(tmp_path / "other")],
    ):
        assert cli.main(words) == 2
    assert downloads == ["food101"] * 4


def test_published_weights_that_only_a_config_names_are_not_downloaded(run, images, tmp_path, monkeypatch, capsys):
    made: list[bool] = []

    def create_model(name, **options):
        made.append(options["pretrained"])
        raise OSError("no network in tests")

    monkeypatch.setattr(timm, "create_model", create_model)
    config = yaml.safe_load((run / "config.yaml").read_text())
    kept = {name: config[name] for name in ("data", "task", "steps", "size")}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({**kept, "encoder": "timm:resnet18", "pretrained": True}))
    begin = ["pretrain", str(images), "--config", str(path), "--out", str(tmp_path / "new"), "--task", "rotation"]
    assert cli.main(begin) == 2
    assert "give --pretrained to allow it" in capsys.readouterr().err
    assert made == []
    assert cli.main([*begin, "--pretrained"]) == 2
    assert made == [True]
    rewrite(run, encoder="timm:resnet18", pretrained=True)
    shutil.rmtree(run / "checkpoint")
    assert cli.main(["pretrain", "--resume", "--out", str(run)]) == 2
    assert made == [True]


def test_without_a_home_folder_there_is_one_sentence(images, tmp_path, monkeypatch, capsys):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SELFTAUGHT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", no_home)
    assert cli.main(["pretrain", str(images), "--out", str(tmp_path / "run"), *TINY]) == 2
    assert "set SELFTAUGHT_CACHE to a folder" in capsys.readouterr().err


def test_a_config_is_utf_8_in_every_locale(run, tmp_path):
    rewrite(run, data=[str(tmp_path)])
    path = run / "config.yaml"
    path.write_bytes(path.read_bytes().replace(str(tmp_path).encode(), "Bilder é 회전".encode()))
    code = "import sys; from selftaught.runs.folder import RunFolder; from pathlib import Path\n"
    code += "print(ascii(RunFolder(Path(sys.argv[1])).read_config()['data'][0]))"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run([sys.executable, "-c", code, str(run)], env=plain, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ascii("Bilder é 회전")
