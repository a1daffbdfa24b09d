"""How many pictures a call takes within the memory cap, and that pictures stream through."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.enhance.apply import Enhancer, Picture
from agetf_pipeline.enhance.assemble import build_enhancer
from agetf_pipeline.enhance.colour import Colouriser
from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
from agetf_pipeline.enhance.esrgan import build_esrgan, load_esrgan
from agetf_pipeline.enhance.tiling import activation_bytes_per_px, whole_mib

pytestmark = pytest.mark.usefixtures("two_threads")

CPU = torch.device("cpu")
COLOURISER = Colouriser(torch.nn.Identity(), 256, "none")


@pytest.fixture
def resolver(tmp_path):
    torch.save({"params": build_esrgan("srvgg", "tiny", 2).state_dict()}, tmp_path / "w.pth")
    return load_esrgan(tmp_path / "w.pth", "srvgg", "tiny", 2)


def make(resolver, device=CPU, **settings) -> Enhancer:
    section = EnhanceConfig.model_validate(settings)
    capped = replace(resolver, max_memory_mib=section.max_memory_mib)
    return build_enhancer(section, COLOURISER, capped, device)


def test_a_cpu_takes_one_picture_a_call_and_a_gpu_several(resolver):
    on_cpu, on_gpu = make(resolver), make(resolver, torch.device("cuda"))
    assert (on_cpu.num_threads, on_cpu.num_coloured, on_cpu.num_resolved(64, 64)) == (2, 1, 1)
    assert (on_gpu.num_threads, on_gpu.num_coloured, on_gpu.num_resolved(64, 64)) == (1, 8, 8)
    assert make(resolver, batch_size=3).num_resolved(64, 64) == 3


def test_what_runs_at_once_keeps_to_the_cap(resolver):
    wide = replace(resolver, channels_per_px=1024)
    one_mib = whole_mib(128, 128, 2, activation_bytes_per_px(1024))
    assert one_mib == pytest.approx(380, rel=0.1)
    # Two calls of four; of two; of one; one image with tiles, nothing beside it.
    for cap_mib, expected in ((3200, 4), (1600, 2), (800, 1), (500, 0), (300, 0)):
        found = make(wide, max_memory_mib=cap_mib, batch_size=4)
        assert found.num_resolved(128, 128) == expected, cap_mib
        assert found.num_threads * expected * one_mib <= cap_mib
    assert COLOURISER.picture_mib == 125
    assert make(wide, max_memory_mib=240).num_threads == 1
    tight = make(wide, max_memory_mib=800, batch_size=64)
    assert tight.num_threads * tight.num_coloured * COLOURISER.picture_mib <= 800
    assert tight.num_coloured == 3


def test_a_cap_without_room_for_a_picture_is_refused(resolver):
    with pytest.raises(ConfigError, match=r"max_memory_mib of at least 125 .* found 100"):
        make(resolver, max_memory_mib=100)


def test_large_pictures_and_the_official_engine_run_alone(resolver):
    free = make(resolver, max_memory_mib=None, tile_px=64, batch_size=4)
    assert (free.num_resolved(64, 64), free.num_resolved(64, 65)) == (4, 0)
    assert OfficialSuperResolver(resolver).num_at_once(64, 64, 512, 4, 2) == 0


def test_pictures_stream_through_both_networks(resolver):
    """Every picture comes out once, as its decision says; little is read ahead."""
    config = EnhanceConfig(target_px=64)
    threads: set[int] = set()

    def note(images):
        threads.add(threading.get_ident())
        return images

    enhancer = Enhancer(
        config,
        lambda images: [255 - image for image in note(images)],
        lambda stack: note(stack).repeat(2, axis=1).repeat(2, axis=2),
        CPU, 2, lambda height, width: 0 if height > 40 else 2, 2, window=6,
    )  # fmt: skip
    read = 0

    def pictures() -> Iterator[Picture]:
        nonlocal read
        rng = np.random.default_rng(0)
        for read in range(60):
            side, grey = (32, 48, 64)[read % 3], read % 2 == 0
            rgb = rng.integers(0, 256, (side, side, 3), np.uint8)
            yield enhancer.look((read, rgb), rgb[:, :, :1].repeat(3, axis=2) if grey else rgb)

    found, stream = {}, enhancer.stream(pictures())
    for number, picture in enumerate(stream):
        assert read <= number + 40
        index, rgb = picture.key
        assert index not in found
        expected = 255 - rgb[:, :, :1].repeat(3, axis=2) if index % 2 == 0 else rgb
        assert picture.decision.colourise == (index % 2 == 0)
        assert picture.decision.super_resolve == (index % 3 < 2)
        if index % 3 < 2:
            expected = expected.repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(picture.rgb, expected)
        found[index] = picture
    assert len(found) == 60
    assert threading.get_ident() in threads  # what had to be alone
    assert len(threads) > 1
