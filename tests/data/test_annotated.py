"""Annotated images: layouts, canvases, boxes under resizing and mirroring, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import disc_image, draw_coco, draw_voc, voc_xml
from selftaught.augment.warp import identity
from selftaught.data.annotated import open_boxes, open_masks
from selftaught.data.annotated.canvas import content_size, flip_boxes, flip_matrices
from selftaught.data.annotated.source import IGNORED
from selftaught.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_voc(tmp_path_factory.mktemp("voc") / "discs")


@pytest.fixture
def voc(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "discs")


@pytest.fixture
def coco(tmp_path):
    return draw_coco(tmp_path / "coco")


def everything(source):
    return source.batch(torch.arange(len(source)), CPU)


def test_voc_has_its_parts_classes_and_boxes(voc):
    parts = open_boxes(voc, 64)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [4, 2, 4]
    assert parts.train.classes == ("blue", "red")
    batch = everything(parts.train)
    for number in range(4):
        objects = disc_image(number)[2]
        assert batch.targets["boxes"][number].tolist() == [list(box) for _, box in objects]
        assert batch.targets["box_labels"][number].tolist() == [1, 2]
    assert batch.targets["content"].tolist() == [[64, 48]] * 4


def test_coco_has_the_same_boxes_as_voc(coco, voc):
    parts, others = open_boxes(coco, 64), open_boxes(voc, 64)
    assert len(parts.test) == 2
    assert len(parts.train) + len(parts.validation) == 4
    assert "a fifth of the training images" in parts.note
    assert parts.train.classes == others.train.classes
    for path, item in (
        (path, item)
        for part in (parts.train, parts.validation)
        for path, item in zip(part.paths, part.items, strict=True)
    ):
        same = others.train.items[int(path.stem)]
        assert item.boxes.tolist() == same.boxes.tolist()
        assert item.names == same.names


@pytest.mark.parametrize("side", [32, 50, 100])
def test_boxes_follow_resizing(voc, side):
    """The box of the red and blue pixels of the resized canvas, found by brute force."""
    source = open_boxes(voc, side).train
    batch = everything(source)
    images = batch.warp(identity(4), side)
    for number in range(4):
        red = (images[number, 0] > 0.7) & (images[number, 2] < 0.4)
        rows, columns = torch.nonzero(red, as_tuple=True)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert torch.allclose(torch.stack(found).float(), batch.targets["boxes"][number, 1], atol=1.5 * side / 64)


def test_mirrored_contents_and_boxes_agree_with_a_mirrored_image(voc):
    parts = open_masks(voc, 64), open_boxes(voc, 64)
    flipped = torch.tensor([1.0, 0.0, 1.0, 1.0])
    for source in (parts[0].train, parts[1].train):
        batch = everything(source)
        matrix = flip_matrices(batch.targets["content"], flipped, 64)
        views = batch.warp(matrix, 64)
        for number in range(4):
            whole = batch.images[number].float() / 255
            expected = whole.clone()
            if flipped[number]:
                expected[:, :48] = whole[:, :48].flip(2)
            assert torch.allclose(views[number], expected, atol=1e-4)
    boxes = flip_boxes(batch.targets["boxes"], batch.targets["content"], flipped)
    for number in range(4):
        for box, (_, (x1, y1, x2, y2)) in zip(boxes[number].tolist(), disc_image(number)[2], strict=True):
            assert box == ([64 - x2, y1, 64 - x1, y2] if flipped[number] else [x1, y1, x2, y2])
    batch = everything(parts[0].train)
    masks = batch.warp(flip_matrices(batch.targets["content"], flipped, 64), 64, of="mask")
    for number in range(4):
        mask = torch.from_numpy(disc_image(number)[1]).float()
        assert torch.equal(masks[number, 0, :48], mask.flip(1) if flipped[number] else mask)
        assert (masks[number, 0, 48:] == IGNORED).all()


def test_a_narrow_image_is_mirrored_in_its_own_width(voc):
    tall = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 20, 3)).astype(np.uint8))
    tall.save(voc / "JPEGImages/000.png")
    (voc / "Annotations/000.xml").write_text(voc_xml([("red", (2, 3, 10, 30))], (20, 48)))
    source = open_boxes(voc, 48).train
    batch = source.batch(torch.tensor([0]), CPU)
    assert batch.targets["content"].tolist() == [[20, 48]]
    view = batch.warp(flip_matrices(batch.targets["content"], torch.ones(1), 48), 48)[0]
    pixels = torch.from_numpy(np.asarray(tall).transpose(2, 0, 1).copy()).float() / 255
    assert torch.allclose(view[:, :, :20], pixels.flip(2), atol=1e-4)
    assert torch.allclose(view[:, :, 20:], torch.tensor([124, 116, 104]).view(3, 1, 1) / 255, atol=1e-6)
    assert flip_boxes(batch.targets["boxes"], batch.targets["content"], torch.ones(1)).tolist() == [[[10, 3, 18, 30]]]


def test_the_aspect_ratio_is_kept():
    assert content_size(640, 480, 320) == (320, 240)
    assert content_size(480, 640, 320) == (240, 320)
    assert content_size(5000, 3, 320) == (320, 1)


def test_difficult_objects_are_not_trained_on_and_images_without_objects_are_background(voc):
    (voc / "Annotations/000.xml").write_text(voc_xml([("red?", (2, 3, 10, 30)), ("red", (20, 3, 40, 30))]))
    text = (voc / "Annotations/000.xml").read_text().replace("red?", "red")
    (voc / "Annotations/000.xml").write_text(text)
    (voc / "Annotations/001.xml").write_text(voc_xml([]))
    parts = open_boxes(voc, 64)
    batch = everything(parts.train)
    assert batch.targets["box_labels"].tolist() == [[2, 0], [0, 0], [1, 2], [1, 2]]
    assert parts.train.items[0].ignored.tolist() == [True, False]
    assert "1 images have no objects" in parts.note


def test_masks_without_a_list_of_classes_are_numbered(voc):
    root = voc.parent / "pairs"
    for split in ("train", "val", "test"):
        names = (voc / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        for kind, folder in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
            (root / split / kind).mkdir(parents=True)
            for name in names:
                shutil.copy(voc / folder / f"{name}.png", root / split / kind)
    parts = open_masks(root, 64)
    assert parts.train.classes == ("0", "1", "2")
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [4, 2, 4]
    assert everything(parts.test).targets["mask"].unique().tolist() == [0, 1, 2, IGNORED]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc_xml([("red", (5, 5, 70, 20))]), r"box 1 of 000.xml \(x 5 to 70, y 5 to 20\) is outside of its image"),
        (voc_xml([("red", (5, 5, 5, 20))]), "has no area: correct or remove it"),
        (voc_xml([("red", (5, 5, "nan", 20))]), "has no area"),
        (voc_xml([("red", (5, 5, "x", 20))]), "object 1 of 000.xml needs a name and a bndbox of four numbers"),
        (voc_xml([("", (5, 5, 10, 20))]), "object 1 of 000.xml needs a name"),
        (voc_xml([("red", (5, 5, 10, 20))], (99, 48)), "for an image of 99 x 48 pixels, but 000.png has 64 x 48"),
        ("", "000.xml is empty: an image without objects needs"),
        ("<annotation><object>", "is not valid XML"),
        (voc_xml([], head=BOMB), "has a document type or entities, which are refused"),
        (voc_xml([], head=EXTERNAL), "has a document type or entities, which are refused"),
        (None, "000.xml is missing, but the image is listed"),
    ],
)
def test_invalid_annotations_are_refused(voc, text, message):
    file = voc / "Annotations/000.xml"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        open_boxes(voc, 64)


def test_a_class_of_the_test_images_alone_is_refused(voc):
    (voc / "Annotations/008.xml").write_text(voc_xml([("Red", (5, 5, 10, 20))]))
    with pytest.raises(UserError, match=r"test images of .* have the class 'Red', which no training image has"):
        open_boxes(voc, 64)


def test_no_annotation_no_image_and_no_object_are_refused(voc, images):
    with pytest.raises(UserError, match="has no boxes: use VOC's layout"):
        open_boxes(images, 64)
    with pytest.raises(UserError, match="--data expects a folder"):
        open_boxes(voc / "nothing", 64)
    for file in (voc / "Annotations").glob("*"):
        file.write_text(voc_xml([]))
    with pytest.raises(UserError, match=r"no training image of .* has an object"):
        open_boxes(voc, 64)
    (voc / "JPEGImages/001.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"001.png is empty: restore the image"):
        open_boxes(voc, 64)
    (voc / "JPEGImages/001.png").unlink()
    with pytest.raises(UserError, match="has no image '001', which is listed"):
        open_boxes(voc, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), "has no area"),
        (lambda c: c["annotations"][0].update(bbox=[60, 2, 10, 5]), "is outside of its image of 64 x 48 pixels"),
        (lambda c: c["annotations"][0].update(category_id=1), "an annotation of a category that it does not list"),
        (lambda c: c["annotations"][0].update(image_id=1), "an annotation of an image that it does not list"),
        (lambda c: c["annotations"][0].update(bbox=[1]), "not a valid COCO file .*bbox"),
        (lambda c: c["images"][0].update(file_name="../x.png"), "outside of --data"),
        (lambda c: c["images"][0].update(file_name="x.png"), "has no image 'x.png'"),
        (lambda c: c["images"][0].update(width=5), "for an image of 5 x 48 pixels"),
        (lambda c: c.pop("categories"), "not a valid COCO file .*categories"),
    ],
)
def test_invalid_coco_files_are_refused(coco, change, message):
    file = coco / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        open_boxes(coco, 64)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_coco_file_that_is_no_object_is_refused(coco, text):
    (coco / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(UserError, match=r"is empty|not a valid COCO file"):
        open_boxes(coco, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask[:-1], "has 64 x 47 pixels, but its image has 64 x 48"),
        (lambda mask: mask + 1, "has the class number 3, but there are 3 classes"),
        (lambda mask: np.stack([mask] * 3, 2), r"must have one 8-bit channel .* got RGB"),
        (None, "cannot read the mask"),
    ],
)
def test_invalid_masks_are_refused(voc, change, message):
    file = voc / "SegmentationClass/000.png"
    mask = disc_image(0)[1]
    file.unlink()
    if change is None:
        file.write_bytes(b"\x89PNG")
    else:
        Image.fromarray(np.ascontiguousarray(change(mask))).save(file)
    with pytest.raises(UserError, match=message):
        open_masks(voc, 64)


def test_missing_masks_are_refused(voc, images):
    with pytest.raises(UserError, match="has no masks: use VOC's layout"):
        open_masks(images, 64)
    (voc / "SegmentationClass/000.png").unlink()
    with pytest.raises(UserError, match=r"000.png has no mask of the same name"):
        open_masks(voc, 64)
