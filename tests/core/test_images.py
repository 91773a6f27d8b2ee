"""Reading image files of every kind, and turning them into model inputs."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from cfcam_core import BackendNotFoundError, InvalidInputError
from cfcam_core.exif import orientation
from cfcam_core.images import (
    PREPROCESSINGS,
    ModelInput,
    default_preprocessing,
    fit,
    prepare,
    read_image,
)

UPRIGHT = np.array([[0, 1, 2], [3, 4, 5]])  # cells of a picture of 2 x 3 cells
STORED = {  # how a camera stores that picture under each orientation (EXIF 2.32, 4.6.4)
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),  # turned against the clock, so that a turn with it sets it right
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}
CELL = 16
PALETTE = np.array(
    [(250, 10, 20), (10, 240, 30), (20, 30, 230), (240, 230, 10), (15, 220, 230), (120, 120, 120)],
    np.uint8,
)


def picture(cells):
    """Return RGB with one flat colour a cell, large enough to survive a JPEG."""
    return PALETTE[np.kron(cells, np.ones((CELL, CELL), int))]


def cells(image):
    """Return which colour stands in the middle of each cell."""
    middle = image[CELL // 2 :: CELL, CELL // 2 :: CELL].astype(int)
    return np.abs(middle[:, :, None] - PALETTE).sum(axis=-1).argmin(axis=-1)


def tiff_header(value, order=">"):
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_exif(data, header):
    """Put EXIF into the bytes of a JPEG, PNG or WebP file."""
    if data[:2] == b"\xff\xd8":
        block = b"Exif\0\0" + header
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    if data[1:4] == b"PNG":
        return data[:33] + chunk(b"eXIf", header) + data[33:]
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    has_alpha = 16 if data[12:16] == b"VP8L" else 0
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 8 | has_alpha) + size
    body += data[12:] + b"EXIF" + struct.pack("<I", len(header)) + header
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encoded(suffix, image, *options):
    bands = image if image.ndim == 2 else image[..., [2, 1, 0, *range(3, image.shape[2])]]
    return cv2.imencode(suffix, bands, options)[1].tobytes()


@pytest.fixture
def read(tmp_path):
    def from_bytes(data, name="image"):
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path)

    return from_bytes


def test_colours_come_out_as_rgb(read):
    for suffix in (".png", ".bmp", ".tiff", ".jpg", ".webp"):
        image = read(encoded(suffix, picture(UPRIGHT)))
        assert (image.dtype, image.shape) == (np.uint8, (32, 48, 3)), suffix
        np.testing.assert_array_equal(cells(image), UPRIGHT, suffix)
        if suffix in {".png", ".bmp", ".tiff"}:
            np.testing.assert_array_equal(image, picture(UPRIGHT))


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("suffix", "alpha", "bits"),
    [
        (".jpg", False, 8),
        (".webp", False, 8),
        (".webp", True, 8),
        (".png", False, 8),
        (".png", True, 8),
        (".png", False, 16),
        (".png", True, 16),
    ],
)
def test_every_orientation_is_set_right(read, value, order, suffix, alpha, bits):
    stored = picture(STORED[value])
    if alpha:
        stored = np.dstack([stored, np.full(stored.shape[:2], 255, np.uint8)])
        stored[0, 0, 3] = 128
    if bits == 16:
        stored = stored.astype(np.uint16) * 257
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" and alpha else []
    data = with_exif(encoded(suffix, stored, *lossless), tiff_header(value, order))
    image = read(data)
    assert image.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(cells(image if bits == 8 else image // 257), UPRIGHT)


@pytest.mark.parametrize("value", STORED)
def test_gray_pictures_are_set_right(read, value):
    gray = np.kron(STORED[value], np.ones((CELL, CELL), int)).astype(np.uint8) * 40
    image = read(with_exif(encoded(".png", gray), tiff_header(value)))
    np.testing.assert_array_equal(image[::CELL, ::CELL, 1], UPRIGHT * 40)


@pytest.mark.parametrize("value", STORED)
def test_tiff_files_are_turned_once(read, value):
    data = bytearray(encoded(".tiff", picture(STORED[value]), cv2.IMWRITE_TIFF_COMPRESSION, 1))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [bytes(data[start + 2 + 12 * i : start + 14 + 12 * i]) for i in range(count)]
    entries = [e for e in entries if e[:2] != b"\x12\x01"]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, value, 0))
    entries.sort(key=lambda e: e[1::-1])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    struct.pack_into("<I", data, 4, len(data))
    np.testing.assert_array_equal(cells(read(bytes(data) + directory)), UPRIGHT)


@pytest.mark.parametrize("value", [0, 9, 0xFFFF])
def test_nonsense_orientations_are_passed_over(value):
    assert orientation(with_exif(encoded(".png", picture(UPRIGHT)), tiff_header(value))) == 1


def test_damaged_exif_is_passed_over(read):
    data = encoded(".jpg", picture(UPRIGHT))
    for header in (b"", b"MM", tiff_header(6)[:-9], b"MM\0*\xff\xff\xff\xff", b"XX" + bytes(20)):
        np.testing.assert_array_equal(cells(read(with_exif(data, header))), UPRIGHT)


def test_alpha_is_composited_on_white(read):
    for kind in (np.uint8, np.uint16):
        top = np.iinfo(kind).max
        image = np.zeros((1, 3, 4), kind)
        image[0, :, 3] = 0, top // 5, top
        assert read(encoded(".png", image))[0, :, 0].tolist() == [top, top - top // 5, 0]


def test_sixteen_bits_keep_their_range(read):
    image = np.array([[0, 1, 300, 65535]], np.uint16)
    np.testing.assert_array_equal(read(encoded(".png", image))[..., 2], image)
    one = ModelInput(1, (1, 4), channels_last=True, is_size_free=False)
    unit = prepare(read(encoded(".png", image)), one, "unit")
    np.testing.assert_allclose(unit[0, ..., 0], image / 65535, atol=1e-7)


def test_gray_and_palette_pictures_become_rgb(read):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert (read(encoded(".png", gray)) == gray[..., None]).all()
    colours = struct.pack(">2I5B", 2, 1, 8, 3, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", colours)
    data += chunk(b"PLTE", bytes([9, 8, 7, 200, 100, 50]))
    rest = chunk(b"IDAT", zlib.compress(bytes([0, 1, 0]))) + chunk(b"IEND", b"")
    assert read(data + rest).tolist() == [[[200, 100, 50], [9, 8, 7]]]
    transparent = read(data + chunk(b"tRNS", bytes([255, 0])) + rest)
    assert transparent.tolist() == [[[255, 255, 255], [9, 8, 7]]]


def test_float_pictures(read):
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(read(encoded(".tiff", image))[..., 0], image)
    for bad in (image * 2, -image, image * np.float32("nan")):
        with pytest.raises(InvalidInputError, match="wanted 0 to 1"):
            read(encoded(".tiff", bad))


def test_unusual_names(read):
    assert read(encoded(".png", picture(UPRIGHT)), "größe ∂ 猫.dat").shape == (32, 48, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_files_cut_short_are_refused_in_silence(read, capfd, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encoded(suffix, noise)
    with pytest.raises(InvalidInputError, match="image"):
        read(data[: int(len(data) * share)])
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_refused_in_silence(read, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = bytearray(encoded(".png", noise))
    data[len(data) // 2 : len(data) // 2 + 30] = bytes(30)
    for content in (bytes(data), b"GIF89a", b"just text", bytes(1000)):
        with pytest.raises(InvalidInputError, match="damaged"):
            read(content)
    scan = bytearray(encoded(".jpg", noise))
    scan[-600:-500] = bytes(range(100))
    read(bytes(scan))  # a JPEG with damage inside decodes to something; it must not chatter either
    assert capfd.readouterr() == ("", "")
    sys.stderr.write("still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_missing_empty_and_folders(tmp_path, read):
    with pytest.raises(InvalidInputError, match="No such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InvalidInputError, match=r"directory|denied"):
        read_image(tmp_path)
    with pytest.raises(InvalidInputError, match="is empty"):
        read(b"")


def test_without_standard_error(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(".png", picture(UPRIGHT)))
    code = (
        "import os; os.close(2)\nfrom cfcam_core.images import read_image\n"
        f"print(read_image({str(tmp_path / 'a.png')!r}).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"(32, 48, 3)\n"


class Fake:
    layers = capture = scores = scores_from = lambda self, *_: None

    def __init__(self, *shape, layout="channels_first", dtype=np.float32, names=("x",)):
        self.input_shape = shape
        self.input_layout = layout
        self.input_dtype = np.dtype(dtype)
        self.input_names = names


def test_the_model_says_what_it_takes():
    last = "channels_last"
    assert ModelInput.of(Fake(None, 3, 20, 30)) == ModelInput(3, (20, 30), False, False)
    assert ModelInput.of(Fake(1, 20, 30, 1, layout=last)) == ModelInput(1, (20, 30), True, False)
    assert ModelInput.of(Fake(None, None, None, None)) == ModelInput(3, (224, 224), False, True)
    assert ModelInput.of(Fake(None, None, 96, 3, layout=last)) == ModelInput(
        3, (96, 96), True, True
    )
    for wrong, message in (
        (Fake(None, 4, 20, 30), "4 channels"),
        (Fake(None, 1, 16000), "16000"),
        (Fake(), r"shape \(\)"),
        (Fake(None, 3, 20, 30, names=("left", "right")), r"2 inputs \(left, right\)"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            ModelInput.of(wrong)


def test_the_size_of_pictures_may_be_chosen_where_it_is_open():
    free, half = Fake(None, 3, None, None), Fake(None, 3, 96, None)
    assert ModelInput.of(free, size=(32, 48)) == ModelInput(3, (32, 48), False, True)
    assert ModelInput.of(half, size=(96, 48)) == ModelInput(3, (96, 48), False, True)
    assert ModelInput.of(Fake(None, 3, 20, 30), size=(20, 30)).size == (20, 30)
    for model, size, message in (
        (Fake(None, 3, 20, 30), (30, 20), "30x20 does not fit: .* of 20x30"),
        (half, (48, 48), "48x48 does not fit: .* of 96xany"),
        (free, (0, 5), "2 positive integers"),
        (free, (5,), "2 positive integers"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            ModelInput.of(model, size=size)


def test_a_model_that_is_not_open_is_opened(monkeypatch):
    """Keras models have an `input_shape` themselves, but know no layout as a backend does."""
    model, opened = Fake(None, 30, 20, 3), Fake(None, 30, 20, 3, layout="channels_last")
    monkeypatch.setattr("cfcam_core.images.open_model", {model: opened}.__getitem__)
    assert ModelInput.of(model) == ModelInput(3, (30, 20), True, False)
    monkeypatch.undo()
    with pytest.raises(BackendNotFoundError, match=r"no backend opens a builtins\.object"):
        ModelInput.of(object())
    with pytest.raises(InvalidInputError, match=r"no model file 'absent\.onnx'"):
        ModelInput.of("absent.onnx")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", [(1.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]),
        ("tf", [1.0, -0.6, -0.2]),
        ("caffe", [102 - 103.939, 51 - 116.779, 255 - 123.68]),
        ("unit", [1.0, 0.2, 0.4]),
        ("raw", [255.0, 51.0, 102.0]),
    ],
)
def test_preprocessings(name, expected):
    image = np.array([[[255, 51, 102]]], np.uint8)
    first = prepare(image, ModelInput(3, (2, 2), False, False), name)
    assert (first.shape, first.dtype) == ((1, 3, 2, 2), np.float32)
    np.testing.assert_allclose(first[0, :, 0, 0], expected, rtol=1e-5, atol=1e-5)
    last = prepare(image, ModelInput(3, (2, 2), True, False), name)
    np.testing.assert_array_equal(last, first.transpose(0, 2, 3, 1))
    half = prepare(image / 255, ModelInput(3, (2, 2), False, False), name)
    np.testing.assert_allclose(half, first, rtol=1e-4, atol=1e-4)


def test_one_channel_is_luminance():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [80, 80, 80]]], np.uint8)
    out = prepare(image, ModelInput(1, (1, 4), False, False), "raw")
    np.testing.assert_allclose(out[0, 0, 0], [76.245, 149.685, 29.07, 80], rtol=1e-5)


def test_preprocessings_that_do_not_fit():
    one, three = (ModelInput(n, (2, 2), False, False) for n in (1, 3))
    assert (default_preprocessing(one), default_preprocessing(three)) == ("unit", "imagenet")
    with pytest.raises(InvalidInputError, match="use one of tf, unit, raw"):
        prepare(np.zeros((2, 2, 3), np.uint8), one, "caffe")
    with pytest.raises(InvalidInputError, match=", ".join(PREPROCESSINGS)):
        prepare(np.zeros((2, 2, 3), np.uint8), three, "torch")


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_models_of_whole_numbers_get_the_pixels_rounded(kind):
    for channels in (1, 3):
        wanted = ModelInput.of(Fake(None, channels, 2, 2, dtype=kind))
        assert (wanted.is_integer, default_preprocessing(wanted)) == (True, "raw")
        out = prepare(np.full((4, 4, 3), 0.3, np.float32), wanted, "raw")
        np.testing.assert_array_equal(out, np.full((1, channels, 2, 2), round(0.3 * 255)))
        with pytest.raises(InvalidInputError, match="whole numbers; use raw"):
            prepare(np.zeros((4, 4, 3), np.uint8), wanted, "unit")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_shrinking_averages_each_axis_on_its_own(kind):
    stripes = np.zeros((6, 64, 3), kind)
    stripes[:, ::8] = 200 if kind != np.float32 else 1  # linear interpolation alone would miss them
    out = fit(stripes, (12, 8))  # taller and narrower
    assert out.shape == (12, 8, 3)
    np.testing.assert_allclose(out, 25 if kind != np.float32 else 1 / 8, atol=1e-6)
    np.testing.assert_array_equal(fit(stripes, (6, 64)), stripes)
