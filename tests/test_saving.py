"""An encoder that other code trained is a run folder that probe, compare and report treat like any run."""

import pytest
import torch
from PIL import Image

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.report.record import read_records

LOG = [{"step": step, "seconds": step / 2, "images_per_second": 24.0, "loss": 3.0 / step} for step in (1, 2, 4)]


@pytest.fixture
def images(tmp_path):
    for label, low in (("dark", 0), ("light", 127)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(24):
            pixels = torch.randint(low, low + 128, (16, 16, 3), generator=torch.Generator().manual_seed(number))
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"


def trained() -> selftaught.Encoder:
    """Weights and batch-norm statistics that differ from those of any initialization."""
    torch.manual_seed(0)
    encoder = selftaught.make_encoder("convnet", size=16, width=4)
    encoder.train()
    encoder(torch.rand(8, 3, 16, 16)).square().sum().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * parameter.grad.sign()
    return encoder.eval()


def saved(images, out, encoder=None, **changes) -> selftaught.Run:
    settings = {
        "method": "simclr of other",
        "size": 16,
        "options": {"width": 4},
        "steps": 4,
        "seconds": 2.0,
        "log": LOG,
    }
    settings |= {"source": selftaught.open_source(images), "batch_size": 12, "seed": 1, **changes}
    return selftaught.save_encoder(encoder or trained(), "convnet", out, **settings)


def test_the_saved_encoder_gives_the_same_features(images, tmp_path):
    run, encoder, batch = saved(images, tmp_path / "run"), trained(), torch.rand(4, 3, 16, 16)
    assert run.finished
    assert torch.equal(run.encoder(batch), encoder(batch))


def test_it_is_probed_compared_and_reported_like_any_run(images, tmp_path, capsys):
    out, other = tmp_path / "run", tmp_path / "random"
    run = saved(images, out)
    selftaught.baseline("random", images, out=other, size=16, width=4)
    for probe in ("ridge", "knn"):  # k-NN has a row for the embedding of runs with a pretext task
        assert [row.layer for row in run.probe(images, probe=probe).layers] == ["layer1", "layer2", "layer3"]
    selftaught.Run(other).probe(images)
    run.invariance(images, images=8)
    assert main(["compare", str(out), str(other)]) == 0
    assert "simclr of other" in capsys.readouterr().out
    (record,) = read_records([out])
    assert (record.step, record.minutes, record.images_processed, record.status) == (4, 2 / 60, 48, "finished")
    assert list(record.log) == LOG
    html = run.report().read_text()
    assert "simclr of other on convnet" in html
    assert "Other code trained this encoder" in html
    assert "selftaught pretrain --config" not in html


def test_a_probe_counts_test_images_that_it_was_trained_on(images, tmp_path):
    everything = selftaught.open_source(images, split="all")
    assert saved(images, tmp_path / "all", source=everything).probe(images).overlap == 8
    assert saved(images, tmp_path / "train").probe(images).overlap == 0


def test_it_cannot_be_audited_or_resumed(images, tmp_path, capsys):
    out = saved(images, tmp_path / "run").path
    for command in (["audit", str(out)], ["pretrain", "--resume", "--out", str(out)]):
        assert main(command) == 2
        assert "is an encoder that other code trained, which has no pretext task" in capsys.readouterr().err


def test_mistakes_leave_no_folder(images, tmp_path):
    broken = trained()
    torch.nn.init.constant_(broken.blocks["layer1"][0].weight, torch.nan)
    for changes, said in (
        ({"options": {"width": 8}}, "give the name and the options that it was built with"),
        ({"encoder": broken}, "infinity or NaN"),
        ({"log": [{"loss": 1.0}]}, "every line needs its step"),
        ({"batch_size": "many"}, "batch_size"),
        ({"method": ""}, "task"),
    ):
        with pytest.raises(UserError, match=said):
            saved(images, tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()
    saved(images, tmp_path / "run")
    with pytest.raises(UserError, match="expects a new or empty folder"):
        saved(images, tmp_path / "run")
