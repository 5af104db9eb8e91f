"""The audit: nets that are known to read one cue, or what is shown, and nothing else."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from probe_toys import Given
from selftaught.analysis.audit import Changed, audit
from selftaught.analysis.audit_table import AT_CHANCE, TRAINED, AuditRow, AuditTable, best_layers, render
from selftaught.augment.cues import CUES, chromatic_aberration
from selftaught.augment.warp import affine, identity
from selftaught.contracts import Encoder, Layer, Task
from selftaught.errors import UserError
from selftaught.pretext.bigan import BiGAN
from toys import ToyEncoder, ToySource


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(images: torch.Tensor) -> Given:
    return Given(images, torch.zeros(len(images), dtype=torch.int64), None)


class Nothing(Encoder):
    """Has no say: the toy tasks below judge the views themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = {"none": Layer(3, 0)}, "color", nn.Identity()

    def features(self, seen):
        return {"none": seen.mean((2, 3))}


@dataclass(frozen=True)
class Judged(Task):
    """A question with two answers, and a rule instead of a head."""

    rule: str = "light"
    helped: bool = False
    wide: bool = False
    shortcut_guards: ClassVar = {
        "silence": ({"helped": True}, {"helped": False}),
        "narrow": ({"wide": True}, {"wide": False}),
    }

    def __post_init__(self):
        if self.wide:
            raise UserError("tiles must fit.")

    def heads(self, encoder, source):
        return nn.ModuleDict()

    def views(self, batch, generator):
        asked = torch.randint(2, (len(batch),), generator=generator)
        if self.rule == "fringe":  # is this the left or the right half?
            half = affine(x=asked - 0.5, width=0.5, count=len(batch))
            return {"images": batch.warp(half, 32), "asked": asked}
        images = batch.warp(identity(len(batch)), 32)  # was it turned upside down?
        turned = torch.where(asked[:, None, None, None].bool(), images.flip(2), images)
        return {"images": turned, "asked": asked}

    def loss(self, encoder, heads, views, progress=0.0):
        images, asked = views["images"], views["asked"]
        answer = {"light": light, "content": content, "fringe": fringe}[self.rule](images)
        right = torch.where(answer == 0, 0.5, ((answer > 0) == asked.bool()).float())
        if self.helped:
            right = torch.ones_like(right)
        return right.mean(), {"accuracy": right.mean()}

    def visualize(self, encoder, heads, views):
        return {}

    def chance(self, source, batch_size):
        return {"accuracy": 0.5}


def light(images):
    """Upside down is what is darker above: a cue."""
    return images[:, :, 16:].mean((1, 2, 3)) - images[:, :, :16].mean((1, 2, 3))


def content(images):
    """Upside down is what has its spot below: where in the image stands what stands out from around it."""
    luma = images.mean(1, keepdim=True)
    near = nn.functional.avg_pool2d(luma, 5, 1, 2)
    spot = (near / nn.functional.avg_pool2d(luma, 21, 1, 10, count_include_pad=False)).flatten(1).argmax(1)
    return (spot // 32).float() - 15.5


def fringe(images):
    """The right half is where red lies to the right of blue: a cue."""
    apart = images[:, 0] - images[:, 2]
    slope = images[:, 1, :, 2:] - images[:, 1, :, :-2]
    found = (apart[:, :, 1:-1] * slope).sum((1, 2))
    return -torch.where(found.abs() < 1e-3, 0.0, found)


def lit_from_above(count: int = 160) -> torch.Tensor:
    """Noise that is brighter above, and a bright spot in the upper half."""
    images = 0.3 + 0.05 * torch.rand(count, 3, 32, 32, generator=generator())
    images = images + torch.linspace(0.05, 0, 32)[:, None]
    row, column = (torch.randint(5, high, (count,), generator=generator(s)) for s, high in ((1, 9), (2, 25)))
    for image, r, c in zip(images, row, column, strict=True):
        image[:, r - 3 : r + 4, c - 3 : c + 4] += 0.35
    return images


def through_a_lens(count: int = 160) -> torch.Tensor:
    """Grey blots, photographed through a lens that magnifies red more than green and blue less."""
    coarse = torch.rand(count, 1, 12, 12, generator=generator())
    blots = nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    return chromatic_aberration(blots, generator(), by=0.01)


def asked(task: Task, images: torch.Tensor, **more: int) -> dict[str, AuditRow]:
    table = audit(task, Nothing(), nn.ModuleDict(), given(images), **more)
    return {answer.change: answer for answer in table.rows}


def test_a_net_that_reads_light_is_exposed():
    found = asked(Judged(rule="light"), lit_from_above())
    assert found[TRAINED].accuracy == 1
    assert found["light from above"].accuracy == 1
    assert found["light from below"].accuracy == 0
    assert found["light from below"].reference == "light from above"
    assert {name for name, answer in found.items() if answer.uses_cue} == {"light from below"}


def test_a_network_that_uses_chromatic_aberration_follows_a_simulated_lens():
    found = asked(Judged(rule="fringe"), through_a_lens())
    assert found[TRAINED].accuracy > 0.95
    assert found["grayscale"].accuracy == 0.5
    assert found["reversed chromatic aberration"].accuracy < 0.1
    assert found["chromatic aberration"].accuracy > 0.95
    assert found["color channels shifted"].accuracy < 0.8
    read = {name for name, answer in found.items() if answer.uses_cue and answer.kind == "planted"}
    assert read == {"chromatic aberration", "reversed chromatic aberration"}


def test_a_net_that_looks_at_content_is_not_accused():
    found = asked(Judged(rule="content"), lit_from_above())
    assert found[TRAINED].accuracy == 1
    assert {name for name, answer in found.items() if answer.uses_cue} == set()
    assert {answer.meaning for answer in found.values() if answer.kind in ("removed", "planted")} == {"not used"}


def test_guards_are_switched_where_they_are_not_so_already_and_where_it_can_be():
    found = asked(Judged(rule="fringe"), torch.rand(64, 3, 32, 32, generator=generator()))
    assert found["silence off"].accuracy == 1
    assert found["silence off"].uses_cue
    assert found["silence off"].kind == "off"
    assert "silence on" not in found  # as it is anyway
    assert "narrow off" not in found  # refused
    helped = asked(Judged(rule="fringe", helped=True), torch.rand(64, 3, 32, 32, generator=generator()))
    assert helped["silence on"].uses_cue
    assert "silence off" not in helped


def test_a_guess_is_not_told_from_a_guess():
    images = torch.rand(320, 3, 32, 32, generator=generator())
    found = asked(Judged(rule="light"), images, seeds=2)
    assert found[TRAINED].accuracy == pytest.approx(0.5, abs=0.1)
    assert abs(found["JPEG blocks"].difference) < 0.1


def test_the_interval_is_that_of_paired_groups():
    """Written out from what every call of the loss said: eight groups of eight images, one seed."""
    images = 0.4 + 0.2 * torch.rand(64, 3, 32, 32, generator=generator())
    images = images + torch.linspace(0.01, 0, 32)[:, None]
    table = audit(Recording(rule="light"), Nothing(), nn.ModuleDict(), given(images))
    said = torch.tensor(Recording.said, dtype=torch.float64).reshape(len(table.rows), 8)
    place = [answer.change for answer in table.rows].index("noisy")
    apart, found = said[place] - said[0], table.rows[place]
    assert found.difference == pytest.approx(float(apart.mean()))
    quantile = 2.364624  # Student's t, seven degrees of freedom, 0.975 (any table)
    assert found.margin == pytest.approx(quantile * float(apart.std(correction=1)) / 8**0.5, rel=1e-5)
    assert found.margin > 0


@dataclass(frozen=True)
class Recording(Judged):
    said: ClassVar[list] = []

    def loss(self, encoder, heads, views, progress=0.0):
        loss, outputs = super().loss(encoder, heads, views)
        self.said.append(float(outputs["accuracy"]))
        return loss, outputs


def test_a_changed_batch_warps_what_was_changed_and_no_other_picture():
    images = torch.rand(3, 3, 16, 16, generator=generator())
    batch = given(images).batch(torch.tensor([2, 0, 1]), torch.device("cpu"))
    same = Changed(batch, 16, None, generator())
    assert torch.allclose(same.warp(identity(3), 16), images[[2, 0, 1]], atol=1e-6)
    dark = Changed(batch, 16, lambda images, generator: images / 2, generator())
    two = torch.stack([identity(3), identity(3)], 1)
    assert torch.allclose(dark.warp(two, 16), images[[2, 0, 1]][:, None].expand(-1, 2, -1, -1, -1) / 2, atol=1e-6)
    assert torch.equal(dark.index, batch.index)
    assert dark.population == 3


def test_the_table_repeats_itself_and_is_json():
    def table():
        return json.loads(json.dumps(audit(Judged(rule="light"), Nothing(), nn.ModuleDict(), given(noise())).to_json()))

    first = table()
    assert first == table()
    assert first["chance"] == 0.5
    assert [answer["change"] for answer in first["rows"]][: 1 + len(CUES)] == [TRAINED, *CUES]
    assert all(answer["verdict"].endswith(".") for answer in first["rows"])


def noise() -> torch.Tensor:
    return torch.rand(40, 3, 32, 32, generator=generator())


def answer(kind: str, difference: float, margin: float = 0.01) -> AuditRow:
    return AuditRow("x", kind, "with x", 0.5 + difference, TRAINED, 0.5, margin)


@pytest.mark.parametrize(
    ("kind", "difference", "uses_cue", "words"),
    [
        ("planted", -0.1, True, "falls from 0.50 to 0.40 with x (-0.100 ± 0.010, 95 % interval): cue used."),
        ("planted", 0.1, True, "rises from 0.50 to 0.60 with x (+0.100 ± 0.010, 95 % interval): cue used."),
        ("planted", -0.005, False, "No significant change"),
        ("planted", -0.015, False, "small effect"),
        ("removed", -0.1, True, "cue (or correlated content) used"),
        ("removed", 0.1, False, "cue hurt"),
        ("control", -0.1, False, ": control."),
        ("off", 0.1, True, "rises from 0.50 to 0.60"),
        ("off", -0.1, False, ": not used."),
        ("on", -0.1, True, "cue (or correlated content) used"),
        ("on", 0.1, False, "cue hurt"),
    ],
)
def test_verdicts(kind, difference, uses_cue, words):
    found = answer(kind, difference)
    assert found.uses_cue is uses_cue
    assert words in found.verdict


def test_probes_are_told_beside():
    rows = [{"layer": f"l{n}", "accuracy": a, "random": r} for n, (a, r) in enumerate([(0.5, 0.6), (0.7, 0.4)])]
    gain = {"layer": "l0", "random_layer": "l1"}  # chosen on held-out images, not by these test accuracies
    earlier = {"data": "things", "probe": "ridge", "layers": rows}  # without held-out images: left out
    (said,) = best_layers([earlier, {"data": "things", "probe": "knn", "layers": rows, "gain": gain}])
    assert said == (
        "On things, the best layer (l0) reaches 0.500 top-1 accuracy (knn probe); random weights reach 0.400 (l1)."
    )


def test_a_probe_of_images_with_several_classes_is_told_as_map():
    gain = {"layer": "l0", "random_layer": "l0"}
    rows = [{"layer": "l0", "map": 0.3, "random": 0.2}]
    (said,) = best_layers([{"data": "x", "probe": "ridge", "metric": "map", "layers": rows, "gain": gain}])
    assert said == "On x, the best layer (l0) reaches 0.300 mAP (ridge probe); random weights reach 0.200 (l0)."


def test_the_table_names_what_is_read():
    table = audit(Judged(rule="light"), Nothing(), nn.ModuleDict(), given(lit_from_above(64)))
    assert "Shortcuts detected: light from below." in str(render(table).caption)


@pytest.mark.parametrize(("accuracy", "warned"), [(0.25, True), (0.28, True), (0.5, False)])
def test_an_accuracy_at_chance_is_warned_of(accuracy, warned):
    first = AuditRow(TRAINED, "trained", "without any change", accuracy, TRAINED, accuracy, 0.0)
    table = AuditTable("cifar10", "accuracy", 0.25, 480, 1, (first,))
    assert (AT_CHANCE in str(render(table).caption)) is warned


def test_what_cannot_be_audited_is_refused():
    @dataclass(frozen=True)
    class Silent(Judged):
        def chance(self, source, batch_size):
            return {}

    with pytest.raises(UserError, match="chance level, but Silent has none"):
        audit(Silent(), Nothing(), nn.ModuleDict(), given(noise()))
    with pytest.raises(UserError, match=r"at least 4 images, but .* has 3"):
        audit(Judged(), Nothing(), nn.ModuleDict(), given(noise()[:3]))
    with pytest.raises(UserError, match="seeds"):
        audit(Judged(), Nothing(), nn.ModuleDict(), given(noise()), seeds=0)


def test_the_accuracy_of_a_critic_is_not_audited():
    source, task = ToySource(), BiGAN(size=16, generator_width=4, critic_width=4)
    torch.manual_seed(0)
    encoder = ToyEncoder()
    with pytest.raises(UserError, match="chance level, but BiGAN has none"):
        audit(task, encoder, task.heads(encoder, source), source)
