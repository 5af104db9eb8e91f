import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from fake_runs import fake_run
from safetensors.torch import load_file, save_file

from selftaught.config.build import saved_config
from selftaught.errors import UserError
from selftaught.report.record import last_part, read_record, read_records
from selftaught.runs.folder import RunFolder
from selftaught.runs.log import read_log


def test_record_contains_what_was_written(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", lines=4, skipped=["a.png: empty"], seed=3)
    record = read_records([run])[0]
    assert record.name == "rot"
    assert record.status == "finished"
    assert (record.step, record.minutes, record.images_processed) == (80, pytest.approx(10 / 60), 80 * 256)
    assert record.config["seed"] == 3
    assert [line["step"] for line in record.log] == [20, 40, 60, 80]
    assert record.probes[0]["layers"][2]["accuracy"] == 0.723
    assert list(record.skipped) == ["a.png: empty"]
    assert list(record.shown) == ["views"]
    assert record.filters is not None
    assert torch.equal(record.filters, load_file(run / "encoder.safetensors")["stem.conv.weight"])


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', "", "\n", "not json\n", "[1, 2]\n", '{"loss": 1}\n', "\x00\x00"])
def test_truncated_logs_are_loaded_up_to_the_cut(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN, "note": "words"}\n' + tail)
    first, second = read_log(path)
    assert first == {"step": 1, "loss": 2.5}
    assert math.isnan(second.pop("loss"))
    assert second == {"step": 2}


def test_only_settings_are_required(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: rotation\n")
    record = read_record(tmp_path, "bare")
    assert (record.status, record.step, record.minutes, record.images_processed, record.filters) == (
        "unknown",
        *[None] * 4,
    )
    assert not any((record.log, record.probes, record.shown, record.skipped, record.encoder))


def test_progress_falls_back_to_the_log(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", lines=4)
    (run / "run.json").unlink()
    record = read_record(run, "rot")
    assert (record.step, record.minutes) == (80, pytest.approx(10 / 60))


def test_intermediate_examples_replace_missing_final_ones(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", shown=())
    for step in ("step-000900", "step-001000", "step-10000000"):
        (run / "shown" / step).mkdir(parents=True)
        (run / "shown" / step / "views.png").write_bytes(b"")
    assert read_record(run, "rot").shown == {"views": run / "shown" / "step-10000000" / "views.png"}


@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (8, 3, 1, 1), (8, 3)])
def test_first_weights_that_are_not_filters_are_not_shown(tmp_path: Path, shape: tuple[int, ...]) -> None:
    run = fake_run(tmp_path / "rot")
    save_file({"stem.conv.weight": torch.zeros(shape)}, run / "encoder.safetensors")
    assert read_record(run, "rot").filters is None


def test_unreadable_weights_are_not_shown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    (run / "encoder.safetensors").write_bytes(b"half a file")
    assert read_record(run, "rot").filters is None


def test_folders_of_the_same_name_are_distinguished(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / "a" / "rot"), fake_run(tmp_path / "b" / "rot"), fake_run(tmp_path / "b" / "jig")]
    assert [record.name for record in read_records(runs)] == ["a/rot", "b/rot", "jig"]


@pytest.mark.parametrize(
    ("name", "short"),
    [("cifar10", "cifar10"), ("../data/cifar10 (train)", "cifar10 (train)"), ("a/b.jpg, c/d/", "b.jpg, d"), ("", "")],
)
def test_source_names_omit_parent_folders(name: str, short: str) -> None:
    assert last_part(name) == short


def test_user_errors_name_the_cause(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one run folder"):
        read_records([])
    with pytest.raises(UserError, match=r"nowhere is not a run folder \(no config\.yaml\)"):
        read_records([tmp_path / "nowhere"])
    run = fake_run(tmp_path / "rot")
    (run / "probes" / "0.json").write_text('{"data": ')
    with pytest.raises(UserError, match=r"0\.json is not valid JSON"):
        read_records([run])
    (run / "probes" / "0.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="one JSON object, got list"):
        read_records([run])
    (run / "config.yaml").write_text("a: [1,\n")
    with pytest.raises(UserError, match="is not valid YAML") as caught:
        read_records([run])
    assert "\n" not in str(caught.value)
    (run / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_records([run])


def test_probes_of_earlier_weights_are_ignored(tmp_path):
    run = fake_run(tmp_path / "run")
    path = next((run / "probes").glob("*.json"))
    step = json.loads((run / "run.json").read_text())["step"]
    probe = json.loads(path.read_text())
    for at, count in ((step, 1), (step - 1, 0)):
        path.write_text(json.dumps({**probe, "step": at}))
        assert len(read_records([run])[0].probes) == count


@pytest.mark.parametrize("given", [{"encoder.pretrained": True}, {"pretrained": True}, {}])
def test_a_flat_config_is_marked_as_started_from_published_weights_too(tmp_path: Path, given: dict[str, bool]) -> None:
    run = fake_run(tmp_path / "run", encoder="timm:resnet18")
    path = run / "config.yaml"
    own = {"data": ["images"], "task": "rotation", "encoder": "timm:resnet18", "steps": 1, "size": 32, "batch_size": 2}
    path.write_text(yaml.safe_dump({**own, "device": "cpu", "precision": "32", "compile": "off", **given}))
    assert read_record(run, "run").published == bool(given)
    assert bool(saved_config(RunFolder(run))[1].get("encoder.pretrained")) == bool(given)
