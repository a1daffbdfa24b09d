"""Rendering with saved weights: faces in, the same faces at any ages out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agetf_pipeline.age_transformer.embedding import MAX_AGE_YEARS
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import ConfigError, DataError, WeightsError
from agetf_pipeline.core.side_by_side import map_batches
from agetf_pipeline.core.weights import load_state, read_card, read_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from agetf_pipeline.data.photos import FaceChoice

KIND = "age_transformer"
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class RenderedPhoto:
    """One photograph's face and its renderings.

    Attributes:
        face: uint8 (S, S, 3), RGB: the face that was found, aligned.
        renderings: uint8 (A, S, S, 3), RGB.
        flags: What a person may want to know: `several_faces`, `low_res_face`, `exif_rotated`...
    """

    face: np.ndarray
    renderings: np.ndarray
    flags: tuple[str, ...]


class Renderer:
    """A trained AgeTransformer, ready to render. Same input, same bytes.

    Attributes:
        settings: Those of the network.
        card: What the weights' file says of itself (`trained_on`, `run_name`, ...).
        size_px: Side of the faces it takes and gives.
        precision: `fp32` or `bf16`.
    """

    def __init__(
        self,
        model: "AgeTransformer | nn.Module",
        device: "torch.device | str" = "cpu",
        card: dict[str, Any] | None = None,
        precision: Precision = "fp32",
        compiled: bool | str = False,
    ) -> None:
        """Take a model over; it is moved to the device, and for bf16 laid out channels last.

        Args:
            model: The network, or an exported program of it (whose card then says its settings).
            device: Where to compute.
            card: What to say of the weights.
            precision: `bf16` is autocast over fp32 weights.
            compiled: True for `torch.compile`, or the name of one of its backends. The first
                rendering of each number of faces and ages then takes longer.

        Raises:
            ConfigError: The precision is not one of the two.
        """
        import torch

        from agetf_pipeline.age_transformer.exporting import ImagesOnly

        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"Expected the precision fp32 or bf16; found {precision!r}.")
        self.device = torch.device(device)
        self.card = card or {}
        self.precision: Precision = precision
        if isinstance(model, AgeTransformer):
            self.settings = model.settings
            model = ImagesOnly(model.to(self.device).eval())
        else:
            self.settings = ModelSettings.from_card(self.card["model"])
        self.size_px = self.settings.size_px
        if precision == "bf16":
            # In bf16 convolutions of the other layout are reordered every time: a fifth slower.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = model
        self._compiled = bool(compiled)
        if compiled:
            backend = "inductor" if compiled is True else compiled
            self._network = torch.compile(model, backend=backend)  # type: ignore[assignment]

    @classmethod
    def load(
        cls,
        path: Path,
        device: str = "cpu",
        precision: Precision = "fp32",
        compiled: bool | str = False,
    ) -> "Renderer":
        """Rebuild the model that a weights file holds, or open an exported program.

        Args:
            path: `weights.safetensors` of a training run, or a `.pt2` of `agetf model export`.
            device: As in `runtime.device`: `cpu`, `cuda`, `auto`.
            precision: `fp32` or `bf16`.
            compiled: Whether to compile; see `__init__`.

        Raises:
            WeightsError: The file is absent, damaged, or is not that of an AgeTransformer.
            ConfigError: There is no such device, or the precision is not one of the two.
        """
        from agetf_pipeline.age_transformer.exporting import SUFFIX, open_program

        where = resolve_device(device)
        if path.suffix == SUFFIX:
            program, card = open_program(path, where)
            _check_kind(card, path)
            return cls(program, where, card, precision, compiled)
        model, card = load_model(path)
        return cls(model, where, card, precision, compiled)

    def render(
        self,
        faces_NHWC: np.ndarray,
        ages_years: Sequence[float],
        batch_size: int | None = None,
        side_by_side: bool = False,
    ) -> np.ndarray:
        """Render every face at every age, each face encoded once.

        Args:
            faces_NHWC: uint8 (N, S, S, 3), RGB, aligned faces of the model's size.
            ages_years: Ages to render, 0 to 100; anchors or not.
            batch_size: Faces per pass. By default one on the CPU (there it is as fast, and a face
                gives the same bytes whatever faces are beside it), and sixteen on a GPU.
            side_by_side: On a CPU, passes run beside each other on a core each, which pays where
                there are many; in fp32 the number of threads moves rare roundings by one level.
                What is compiled runs one after the other.

        Returns:
            uint8 (N, A, S, S, 3).

        Raises:
            DataError: Faces of another type, size or shape, or an age outside 0 to 100.
            ConfigError: `torch.compile` does not work here.
            StageError: The memory does not hold one face.
            DeviceLostError: The device is gone.
        """
        import torch

        self._check(faces_NHWC, ages_years)
        N, A, S = len(faces_NHWC), len(ages_years), self.size_px
        renderings = np.empty((N, A, S, S, 3), np.uint8)
        batch = batch_size or (1 if self.device.type == "cpu" else 16)
        ages = torch.tensor(list(ages_years), dtype=torch.float32, device=self.device)

        def render(rows: slice) -> np.ndarray:
            faces = to_tensor(faces_NHWC[rows]).to(self.device)
            return to_uint8(self._run(faces, ages.expand(len(faces), A)))

        def render_part(part: slice) -> None:
            with self._inference():  # PyTorch keeps it for each thread
                for rows, images in in_batches(
                    lambda rows: render(slice(part.start + rows.start, part.start + rows.stop)),
                    part.stop - part.start, batch, work,
                ):  # fmt: skip
                    renderings[part.start + rows.start : part.start + rows.stop] = images

        work = Work(f"rendering {A} ages at {S} px", remedy="Render fewer ages at once.")
        if not side_by_side or self._compiled:
            render_part(slice(0, N))
            return renderings
        parts = [slice(start, min(N, start + batch)) for start in range(0, N, batch)]
        for _ in map_batches(render_part, parts, self.device):
            pass
        return renderings

    def render_photo(
        self,
        photo: "Path | str | np.ndarray",
        ages_years: Sequence[float],
        aligned: bool = False,
        face: "FaceChoice" = "only",
    ) -> RenderedPhoto:
        """Find the face of a photograph, align it as FFHQ does, and render it at every age.

        Args:
            photo: A file (JPEG, PNG, WebP) or its pixels, uint8 (H, W, 3), RGB; of any size.
            ages_years: Ages to render, 0 to 100.
            aligned: The face fills the picture already: do not search.
            face: Of several faces, `largest` or the number of one, 1 being the most prominent;
                `only` refuses to choose.

        Raises:
            DataError: The photograph cannot be read, shows no face or several, or an age lies
                outside 0 to 100.
        """
        from agetf_pipeline.data.images import resize_rgb
        from agetf_pipeline.data.photos import face_of_photo

        found = face_of_photo(photo, aligned, face)
        face_HWC = resize_rgb(found.rgb, self.size_px)
        renderings = self.render(face_HWC[None], ages_years)[0]
        return RenderedPhoto(face_HWC, renderings, found.flags)

    def _run(self, faces: "Tensor", ages: "Tensor") -> "Tensor":
        if not self._compiled:
            return self._network(faces, ages)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._network(faces, ages)
        except TorchDynamoException as error:
            raise ConfigError(
                f"Expected torch.compile to work on {self.device}; found: "
                f"{str(error).strip().splitlines()[0][:300]}. On a CPU it needs a C++ compiler "
                "(g++), on a GPU Triton. Install it, or render without --compile."
            ) from error

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Compute without gradients, in the precision asked for, with algorithms that repeat."""
        import torch

        bf16 = self.precision == "bf16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
            # What says fp32 is fp32, not TF32 with its ten binary digits.
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield

    def _check(self, faces_NHWC: np.ndarray, ages_years: Sequence[float]) -> None:
        shape = (self.size_px, self.size_px, 3)
        if faces_NHWC.dtype != np.uint8 or faces_NHWC.ndim != 4 or faces_NHWC.shape[1:] != shape:
            raise DataError(
                f"Expected faces as uint8 (N, {shape[0]}, {shape[1]}, 3); found "
                f"{faces_NHWC.dtype} {faces_NHWC.shape}. Align and resize the faces first."
            )
        wrong = [age for age in ages_years if not 0 <= age <= MAX_AGE_YEARS]
        if wrong or not len(ages_years):
            raise DataError(
                f"Expected one age or more, from 0 to 100 years; found {wrong or 'none'}. "
                "Give ages such as 5 33 80."
            )


def load_model(path: Path) -> tuple[AgeTransformer, dict[str, Any]]:
    """Rebuild the model of a weights file, on the CPU; return it and the file's card.

    Raises:
        WeightsError: The file is absent, damaged, or is not that of an AgeTransformer.
    """
    try:
        card = read_card(path)
    except WeightsError:
        raise
    except Exception as error:  # safetensors raises an exception class of its own
        raise WeightsError(
            f"Expected the weights of an AgeTransformer at {path}; could not read them: {error}. "
            "Copy the file again, or train anew."
        ) from error
    _check_kind(card, path)
    try:
        settings = ModelSettings.from_card(card["model"])
    except (ConfigError, KeyError, AttributeError) as error:
        raise WeightsError(f"The card of {path} does not describe a network: {error}") from error
    model = AgeTransformer(settings)
    load_state(model, read_state(path), str(path))
    return model, card


def to_tensor(faces_NHWC: np.ndarray) -> "torch.Tensor":
    """Return uint8 faces (N, S, S, 3) as float32 (N, 3, S, S), -1 to 1."""
    import torch

    return torch.from_numpy(np.array(faces_NHWC)).permute(0, 3, 1, 2) / 127.5 - 1


def to_uint8(images: "torch.Tensor") -> np.ndarray:
    """Return images (..., 3, S, S), -1 to 1, as uint8 (..., S, S, 3)."""
    import torch

    values = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return values.movedim(-3, -1).cpu().numpy()


def _check_kind(card: dict[str, Any], path: Path) -> None:
    if card.get("kind") != KIND:
        raise WeightsError(
            f"Expected the weights of an AgeTransformer at {path}; found "
            f"{card.get('kind', 'no card')}. Give models/age_transformer/<run>/"
            "weights.safetensors of a training run, or a .pt2 of `agetf model export`."
        )
