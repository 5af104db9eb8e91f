"""What a training prints may be lost; the training may not."""

import io
import json
import os
import sys

import pytest
import torch
from PIL import Image

from crash import in_child
from selftaught import pretrain
from selftaught.cli import main
from selftaught.display.console import LastingStream, stderr_console


def test_while_it_can_it_writes(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    console = stderr_console(markup=False)
    console.print("[one]")
    console.print("two")
    assert stream.getvalue() == "[one]\ntwo\n"
    assert not console.is_terminal


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
def test_after_a_failure_it_is_silent(error):
    class Broken(io.StringIO):
        calls = 0

        def write(self, text):
            self.calls += 1
            raise error(5, "gone")

    stream = Broken()
    lasting = LastingStream(stream)
    assert lasting.write("one") == 3
    assert lasting.write("two") == 3
    lasting.flush()
    assert stream.calls == 1


def test_a_closed_stream_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    stderr_console().print("lost")
    assert main(["report", "nosuch"]) == 2
    assert capsys.readouterr().out == ""


def test_without_a_reader_a_probe_is_still_written(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(48):
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    settings = {"size": 16, "batch_size": 8, "width": 8, "steps": 1, "precision": "32", "device": "cpu"}
    pretrain(tmp_path / "images", out=tmp_path / "run", **settings)

    def work():
        reading, writing = os.pipe()
        os.dup2(writing, 1), os.dup2(writing, 2)
        os.close(writing)
        os.close(reading)
        sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w", buffering=1)
        return main(["probe", str(tmp_path / "run"), "--data", str(tmp_path / "images")])

    assert in_child(work) == (0, "141")
    assert len(list((tmp_path / "run" / "probes").glob("*.json"))) == 1


def test_a_table_is_printed_where_there_is_no_unicode(tmp_path):
    def work():
        sys.stdout = (tmp_path / "out").open("w", encoding="ascii")
        sys.argv = ["selftaught", "list", "tasks"]
        code = main()
        print("±", flush=True)
        return code

    assert in_child(work) == (0, "0")
    assert "\\xb1" in (tmp_path / "out").read_text()


def test_a_pipe_without_a_reader_does_not_end_a_training(tmp_path):
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "images").mkdir()
    for number in range(16):
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "damaged.png").write_bytes(b"\x89PNG")

    def work():
        from selftaught import pretrain

        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        os.close(reading)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        settings = {"size": 16, "batch_size": 8, "width": 8, "steps": 5, "precision": "32", "device": "cpu"}
        run = pretrain(tmp_path / "images", out=tmp_path / "run", **settings)
        sys.stderr.write("nor does what is printed afterwards")
        sys.stderr.flush()
        return run.finished

    assert in_child(work) == (0, "True")
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (status["status"], status["step"]) == ("finished", 5)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 5
