"""Precision, batches side by side, the fast DDColor, and the official engine."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import ConfigError, DeviceLostError, StageError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.enhance import engine
from agetf_pipeline.enhance.colour import load_ddcolor
from agetf_pipeline.enhance.ddcolor import SIZES, DDColor
from agetf_pipeline.enhance.engine import choose_precision, map_batches
from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
from agetf_pipeline.enhance.esrgan import build_esrgan, load_esrgan
from agetf_pipeline.enhance.fast_ddcolor import FastDDColor
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

CPU = torch.device("cpu")
FACES = np.stack([draw_face(draw_identity(i), 40.0, 64) for i in range(3)])


def psnr_db(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(20 * np.log10(255 / np.sqrt(np.mean((ours.astype(float) - theirs) ** 2))))


def make_ddcolor(size: str = "tiny") -> DDColor:
    """Return a network whose batch norms and answer are of the order that training gives them."""
    torch.manual_seed(3)
    network = DDColor(SIZES[size])
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))
        network.decoder.colours.mlp[2].weight.mul_(1500)  # type: ignore[operator]
    return network.eval()


@pytest.fixture
def ddcolor_path(tmp_path):
    save_weights(tmp_path / "ddcolor.safetensors", make_ddcolor(), {})
    return tmp_path / "ddcolor.safetensors"


@pytest.fixture(params=[("rrdbnet", 4), ("rrdbnet", 2), ("srvgg", 4)])
def esrgan(request, tmp_path):
    arch, scale = request.param
    torch.manual_seed(1)
    save_weights(tmp_path / "esrgan.safetensors", build_esrgan(arch, "tiny", scale), {})
    return tmp_path / "esrgan.safetensors", arch, "tiny", scale


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 64, 96)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fast_ddcolor_is_the_plain_one(shape, layout):
    pictures = torch.rand(shape)
    plain, fast = make_ddcolor(), FastDDColor(make_ddcolor()).to(memory_format=layout)
    with torch.inference_mode():
        expected = plain(pictures)
        found = fast(pictures.contiguous(memory_format=layout))
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_the_fast_ddcolor_colours_as_the_plain_one(ddcolor_path):
    fast = load_ddcolor(ddcolor_path, "tiny", 64)
    plain = type(fast)(make_ddcolor(), 64, "plain")
    for ours, theirs in zip(fast(list(FACES)), plain(list(FACES)), strict=True):
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        assert difference.mean() < 1e-4


def test_bf16_costs_little_and_is_named_in_the_version(esrgan, ddcolor_path):
    exact, fast = load_esrgan(*esrgan), load_esrgan(*esrgan, precision="bf16")
    assert fast.version == f"{exact.version}-bf16"
    expected = exact(FACES, 128)
    assert expected.std() > 0
    assert psnr_db(fast(FACES, 128), expected) > 45
    # The tiles of a large picture are joined in fp32.
    assert psnr_db(fast(FACES[:1], 48), expected[:1]) > 45
    exact, fast = load_ddcolor(ddcolor_path, "tiny", 64), load_ddcolor(
        ddcolor_path, "tiny", 64, precision="bf16"
    )  # fmt: skip
    assert fast.version == f"{exact.version}-bf16"
    assert psnr_db(np.stack(fast(list(FACES))), np.stack(exact(list(FACES)))) > 35


def test_bf16_is_taken_only_where_the_device_computes_in_it(monkeypatch, caplog):
    for computes, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(engine, "computes_bf16", lambda device, answer=computes: answer)
        assert choose_precision("bf16", CPU) == expected
        assert choose_precision("fp32", CPU) == "fp32"
    assert "does not compute in bf16" in caplog.text


def test_a_networks_output_is_made_in_fp32(esrgan):
    resolver = load_esrgan(*esrgan, precision="bf16")
    x = torch.rand(1, 3, 16, 16)
    with engine.inference("bf16", CPU):
        assert resolver.network(x).dtype == torch.float32


def test_batches_side_by_side_come_in_order_and_fail_aloud():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=20)

        def square(number: int) -> tuple[int, int]:
            if number < 4:
                meeting.wait()  # two at a time, or this breaks
            return number**2, torch.get_num_threads()

        assert list(map_batches(square, range(5), CPU)) == [
            (0, 1), (1, 1), (4, 1), (9, 1), (16, 2),
        ]  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            list(map_batches(lambda number: 1 // number, range(4), CPU))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_change_no_pixel(esrgan, ddcolor_path):
    before = torch.get_num_threads()
    resolver, colouriser = load_esrgan(*esrgan), load_ddcolor(ddcolor_path, "tiny", 64)
    results = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            results.append((resolver(FACES, 128, 1), np.stack(colouriser(list(FACES), 1))))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)


def test_the_official_engine_gives_the_same_picture_in_silence(esrgan, capsys):
    official, own = OfficialSuperResolver(load_esrgan(*esrgan)), load_esrgan(*esrgan)
    assert (official.scale, official.version) == (own.scale, f"{own.version}-realesrgan")
    whole = own(FACES, 128).astype(int)
    assert np.abs(official(FACES, 128) - whole).max() <= 1
    tiled = official(FACES, 48)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).max() <= 1
    assert capsys.readouterr().out == ""


def test_an_error_within_the_official_engine_is_an_error(esrgan):
    official = OfficialSuperResolver(load_esrgan(*esrgan))
    calls = []

    def fail(module, inputs):
        calls.append(inputs)
        if len(calls) == 2:  # RealESRGANer alone would paste the first tile again
            raise RuntimeError("shapes do not fit")

    official.network.register_forward_pre_hook(fail)
    with pytest.raises(StageError, match="shapes do not fit"):
        official(FACES[:1], 48)
    assert len(calls) == 2


def test_a_device_that_is_lost_within_the_official_engine_is_said_to_be(esrgan):
    official = OfficialSuperResolver(load_esrgan(*esrgan))

    def lose(module, inputs):  # stands for a GPU: there is none here
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    official.network.register_forward_pre_hook(lose)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        official(FACES[:1], 48)


def test_tiles_that_do_not_fit_the_memory_of_the_official_engine_are_halved(esrgan):
    official = OfficialSuperResolver(load_esrgan(*esrgan))
    large = np.tile(FACES[:1], (1, 2, 2, 1))
    whole = official(large, 128).astype(int)
    most_px, sides = 100, []

    def hold(module, inputs):  # stands for a device of so much memory
        sides.append(max(inputs[0].shape[2:]))
        if sides[-1] > most_px:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = official.network.register_forward_pre_hook(hold)
    assert np.abs(official(large, 128) - whole).max() <= 1
    num_failed = sum(side > most_px for side in sides)
    assert num_failed >= 1
    assert np.abs(official(large, 128) - whole).max() <= 1
    assert sum(side > most_px for side in sides) == num_failed  # the size is remembered
    hook.remove()

    most_px = 0
    official.network.register_forward_pre_hook(hold)
    with pytest.raises(StageError, match=r"found too little.*enhance\.tile_px"):
        official(FACES[:1], 48)


def test_a_memory_cap_makes_tiles_and_the_same_picture(esrgan):
    free, capped = load_esrgan(*esrgan), load_esrgan(*esrgan, max_memory_mib=64)
    # The tiny networks would fit whole: as if they were wide ones.
    capped = replace(capped, channels_per_px=600)
    large = np.tile(FACES[:1], (1, 3, 4, 1))
    with pytest.MonkeyPatch.context() as patch:
        sizes = []
        run = type(free)._tiled
        patch.setattr(
            type(free), "_tiled", lambda self, rgb, px, n: sizes.append(px) or run(self, rgb, px, n)
        )
        found = capped(large, 1024)
    assert len(sizes) == 1
    assert sizes[0] < 256
    assert np.abs(found.astype(int) - free(large, 1024)).max() <= 1


def test_a_cap_that_nothing_fits_is_refused(esrgan):
    capped = replace(load_esrgan(*esrgan, max_memory_mib=64), channels_per_px=10**6)
    with pytest.raises(ConfigError, match="MiB"):
        capped(FACES, 512)
