"""What makes two captions of an image comparable: the network and the request behind them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import canonical_json, fingerprint
from agetf_pipeline.core.workspace import Workspace

CODE_VERSION = "3"
"""Of generation and of the filter of age words; raised when either gives other captions."""

_BF16_ROUNDING = "2"
"""Of what is computed in bf16: packed matrices and attention in blocks round in other places."""


@dataclass(frozen=True)
class Request:
    """How captions are asked for.

    Attributes:
        prompt: The words put to the network, the same for every image.
        max_new_tokens: A longer caption is cut, at the end of a sentence where there is one.
        temperature: 0: the likeliest token each time; above: drawn.
        seed: Of drawn tokens, together with the image's id.
    """

    prompt: str
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class CaptionVersion:
    """Which captions of the cache are meant: of one network, asked in one way."""

    model_version: str
    prompt_hash: str

    @property
    def name(self) -> str:
        """For files: `<model_version>-<prompt_hash>`."""
        return f"{self.model_version}-{self.prompt_hash}"


def request_of(config: PipelineConfig) -> Request:
    """Return the request that a configuration asks for."""
    section = config.caption
    return Request(section.prompt, section.max_new_tokens, section.temperature, section.seed)


def current_version(config: PipelineConfig, workspace: Workspace) -> CaptionVersion:
    """Return the version that the caption stage writes under this configuration.

    Raises:
        ConfigError: No expert `janus` is configured.
        WeightsError: Its folder is not there.
    """
    from agetf_pipeline.experts.janus import janus_version, require_janus

    request = request_of(config)
    settings: dict[str, object] = {
        "prompt": request.prompt,
        "max_new_tokens": request.max_new_tokens,
    }
    if request.temperature > 0:
        settings |= {"temperature": request.temperature, "seed": request.seed}
    precision = require_janus(config).precision or config.runtime.precision
    if precision != "fp32":
        settings["precision"] = precision
        settings["rounding"] = _BF16_ROUNDING
    return CaptionVersion(
        janus_version(config, workspace), fingerprint(settings, CODE_VERSION, {})[:16]
    )


def record_version(workspace: Workspace, version: CaptionVersion, request: Request) -> None:
    """Note that the captions of this version are the ones to read; see `recorded_version`."""
    text = canonical_json({**asdict(version), **asdict(request)})
    if not _record(workspace).exists() or _record(workspace).read_text("utf-8") != text:
        write_text(_record(workspace), text)


def recorded_version(workspace: Workspace) -> CaptionVersion | None:
    """Return the version that the caption stage worked under last; None before its first run.

    Readers go by this and not by the configured Janus: who trains need not have its weights.

    Raises:
        DataError: The record is damaged.
    """
    try:
        noted = json.loads(_record(workspace).read_text("utf-8"))
        return CaptionVersion(noted["model_version"], noted["prompt_hash"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"Expected the version of the captions in {_record(workspace)}; found: {error!r}. "
            "Run the stage `caption`, which writes it again."
        ) from error


def _record(workspace: Workspace) -> Path:
    return cache_folder(workspace) / "current.json"


def cache_folder(workspace: Workspace) -> Path:
    """Return where files made from the captions lie: all can be made again."""
    return workspace.root / "data" / "cache" / "captions"
