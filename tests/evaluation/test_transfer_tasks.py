"""Detection and segmentation as tasks: they overfit drawn discs, freeze layers, and refuse encoders without maps."""

import numpy as np
import pytest
import torch

from drawn import disc_image, draw_voc
from selftaught.contracts import Encoder, Layer
from selftaught.data.annotated import open_boxes, open_masks
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.evaluation.transfer.detection import DetectionTransfer
from selftaught.evaluation.transfer.drawing import COLORS
from selftaught.evaluation.transfer.segmentation import SegmentationTransfer, pixel_counts
from toys import ToyEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return draw_voc(tmp_path_factory.mktemp("voc") / "discs")


def trained(transfer, encoder, source, steps, rate, freeze_until=None):
    """Heads after steps of Adam on all images of a source."""
    torch.manual_seed(0)
    task = transfer.task(source.side, freeze_until)
    heads = task.heads(encoder, source)
    groups = task.parameter_groups(encoder, heads)
    weights = [weight for group in groups for weight in group.parameters if weight.requires_grad]
    optimizer, batch = torch.optim.Adam(weights, rate), source.batch(torch.arange(len(source)), CPU)
    for step in range(steps):
        views = task.views(batch, torch.Generator().manual_seed(step))
        encoder.train(), heads.train()
        loss, _ = task.loss(encoder, heads, views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heads


@pytest.mark.parametrize(("detector", "steps"), [pytest.param("c4", 40, marks=pytest.mark.slow), ("fpn", 30)])
def test_a_detector_overfits_four_images(voc, detector, steps):
    source = open_boxes(voc, 64).train
    torch.manual_seed(0)
    encoder, transfer = make_encoder("convnet", size=64, width=16), DetectionTransfer(detector, head_width=64)
    heads = trained(transfer, encoder, source, steps, 3e-3)
    assert transfer.score(transfer.predict(encoder, heads, source, CPU), source)["ap50"] > 0.5


def test_segmentation_overfits_four_images(voc):
    source = open_masks(voc, 64).train
    torch.manual_seed(0)
    encoder, transfer = make_encoder("convnet", size=32, width=8), SegmentationTransfer()
    heads = trained(transfer, encoder, source, 40, 1e-2)
    score = transfer.score(transfer.predict(encoder, heads, source, CPU), source)
    assert score["mean_iou"] > 0.6
    assert score["pixel_accuracy"] > 0.9
    predictions = transfer.predict(encoder, heads, source, CPU)
    assert np.mean(transfer.by_class(predictions, source)) == pytest.approx(score["mean_iou"])
    assert predictions["examples"].shape == (2, 64, 64)


def test_mean_iou_written_out():
    mask = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    counts = pixel_counts(predicted, mask, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [2, 3, 0, 0], [2, 2, 1, 0]]
    shared, ours, theirs = counts[:, None]
    predictions = {"shared": shared, "predicted": ours, "labeled": theirs}
    # 1 of 0, 0, 0 (union 3); 2 of 3; none of class 2, which is labeled; class 3 is not.
    expected = (1 / 3 + 2 / 3 + 0) / 3
    assert SegmentationTransfer().resampled(predictions, None, np.array([[1]]))[0] == pytest.approx(expected)
    assert SegmentationTransfer().score(predictions, [None])["pixel_accuracy"] == pytest.approx(3 / 5)


def test_a_prediction_of_an_ignored_pixel_does_not_count(voc):
    mask = disc_image(0)[1]
    ignored = np.where(mask == 1, 255, mask).astype(np.uint8)
    counts = pixel_counts(np.full(mask.shape, 2), ignored, 3)
    assert counts[1].tolist() == [0, 0, (mask != 1).sum()]


def test_a_resampled_mean_iou_is_that_of_repeated_images():
    rng = np.random.default_rng(0)
    masks, guesses = rng.integers(0, 3, (2, 5, 6, 6))
    transfer, each = (
        SegmentationTransfer(),
        np.stack([pixel_counts(g, m.astype(np.uint8), 3) for g, m in zip(guesses, masks, strict=True)], 1),
    )
    predictions = dict(zip(("shared", "predicted", "labeled"), each, strict=True))
    row = np.array([2, 0, 1, 2, 0])
    chosen = np.repeat(np.arange(5), row)
    m, g = masks[chosen], guesses[chosen]
    expected = np.mean([((m == k) & (g == k)).sum() / ((m == k) | (g == k)).sum() for k in range(3)])
    assert transfer.resampled(predictions, None, row[None])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "transfer", [DetectionTransfer("fpn", head_width=16), DetectionTransfer(head_width=16), SegmentationTransfer()]
)
def test_frozen_layers_and_their_statistics_stay(voc, transfer):
    source = (open_masks if isinstance(transfer, SegmentationTransfer) else open_boxes)(voc, 64).train
    encoder = make_encoder("convnet", size=32, width=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trained(transfer, encoder, source, 2, 1e-2, freeze_until="layer2")
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]) == (".layer3." not in name), name


@pytest.mark.parametrize(
    ("name", "options", "detectors"),
    [
        pytest.param("nin", {"blocks": 3}, ("c4", "fpn"), marks=pytest.mark.slow),
        ("alexnet", {"size": 96}, ("c4", "fpn")),
        ("vit", {"size": 64, "patch": 8, "depth": 2, "width": 24}, ("c4",)),
        pytest.param("timm:resnet18", {"size": 128}, ("c4", "fpn"), marks=pytest.mark.slow),
    ],
)
def test_every_encoder_with_maps_is_a_backbone(voc, name, options, detectors):
    source = open_boxes(voc, 32 if name == "nin" else 64).train
    for detector in detectors:
        encoder, transfer = make_encoder(name, **options), DetectionTransfer(detector, head_width=16)
        heads = trained(transfer, encoder, source, 1, 1e-3)
        predictions = transfer.predict(encoder, heads, source, CPU)
        assert predictions["boxes"][:, :2].min() >= 0
        assert predictions["boxes"][:, 2].max() <= 64
        assert predictions["boxes"][:, 3].max() <= 48


class Flat(ToyEncoder):
    def features(self, inputs):
        return {name: value.mean((2, 3)) for name, value in super().features(inputs).items()}


def test_encoders_without_suitable_maps_are_refused(voc):
    boxes, masks = open_boxes(voc, 64).train, open_masks(voc, 64).train
    vit = make_encoder("vit", size=64, patch=8, depth=2, width=24)
    with pytest.raises(UserError, match=r"fpn needs layers of different strides.*use --detector c4"):
        DetectionTransfer("fpn").task(64, None).heads(vit, boxes)
    for transfer, source in ((DetectionTransfer(), boxes), (SegmentationTransfer(), masks)):
        with pytest.raises(UserError, match="need an encoder with feature maps"):
            transfer.task(64, None).heads(Flat(), source)
        with pytest.raises(UserError, match="no layer of this encoder called 'layer9'"):
            transfer.task(64, "layer9").heads(make_encoder("convnet"), source)


class Odd(Encoder):
    """One layer of stride 12, which is no power of two, whose features are the positions of their cells."""

    def __init__(self):
        super().__init__()
        self.preprocess, self.input_mode = torch.nn.Identity(), "color"
        self.layers = {"only": Layer(2, 12)}

    def features(self, inputs):
        side = inputs.shape[-1] // 12
        row, column = torch.meshgrid(*[12 * torch.arange(side) + 6.0] * 2, indexing="ij")
        return {"only": torch.stack([column, row]).expand(len(inputs), -1, -1, -1)}


def test_boxes_are_pooled_where_they_are_whatever_the_stride():
    from selftaught.evaluation.transfer.detector import build_detector

    encoder = Odd()
    heads = build_detector(encoder, 1, 96, "c4", 16)
    maps, box = encoder.features(torch.zeros(1, 3, 96, 96)), torch.tensor([[24.0, 36.0, 60.0, 84.0]])
    pooled = heads["boxes"].box_roi_pool(maps, [box], [(50, 96)])
    assert torch.allclose(pooled.mean((2, 3)), torch.tensor([[42.0, 60.0]]), atol=1e-3)


def test_classes_that_no_mask_has_have_no_overlap(voc):
    source = open_masks(voc, 64).test
    counts = {"shared": [[8, 3, 0]], "predicted": [[10, 6, 2]], "labeled": [[9, 4, 0]]}
    predictions = {name: np.array(rows * len(source)) for name, rows in counts.items()}
    assert SegmentationTransfer().by_class(predictions, source) == (8 / 11, 3 / 7, None)


def test_boxes_are_drawn_around_their_objects_in_the_color_of_their_class(voc):
    source, transfer = open_boxes(voc, 64).test, DetectionTransfer()
    drawn = (transfer.annotated(source) * 255).round()
    assert drawn.shape == (2, 3, 64, 64)
    for number, item in enumerate(source.items[:2]):
        for (x1, y1, x2, y2), label in zip(item.boxes, source.numbers[number], strict=True):
            middle = drawn[number, :, round((y1 + y2) / 2), round(x1)]
            assert middle.tolist() == list(COLORS[label])
            assert drawn[number, :, round(y1), round((x1 + x2) / 2)].tolist() == list(COLORS[label])
    nothing = {"image": np.zeros(0, int), "boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    plain = transfer.examples(nothing, source)
    kept = source.batch(torch.arange(2), CPU).warp(torch.eye(3).repeat(2, 1, 1), 64)
    torch.testing.assert_close(plain, kept, atol=0.5 / 255 + 1e-6, rtol=0)


def test_masks_are_drawn_over_their_objects(voc):
    source, transfer = open_masks(voc, 64).test, SegmentationTransfer()
    drawn, masks = transfer.annotated(source), source.annotations(range(2))["mask"][:, 0]
    plain = source.batch(torch.arange(2), CPU).warp(torch.eye(3).repeat(2, 1, 1), 64)
    for number in (0, 255):
        unchanged = (masks == number)[:, None].expand_as(plain)
        torch.testing.assert_close(drawn[unchanged], plain[unchanged], atol=0.5 / 255 + 1e-6, rtol=0)
    for label in (1, 2):
        inside = (masks == label)[:, None].expand_as(plain)
        color = torch.tensor(COLORS[label - 1]).view(1, 3, 1, 1).expand_as(plain) / 255
        torch.testing.assert_close(drawn[inside], (plain + color)[inside] / 2, atol=2 / 255, rtol=0)
