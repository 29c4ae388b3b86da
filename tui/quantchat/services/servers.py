"""The servers of the settings: their keys, their models, and where an engine process asks one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from quantchat.domain.models import ModelInfo, Problem, QuantSpec
from quantchat.domain.sections import Row
from quantchat.domain.served import ServedModel, ServerListing
from quantchat.domain.servers import NAME, ServerSpec, ServerTarget, Url, host_of, server_path, split_path
from quantchat.domain.text import shortened
from quantchat.errors import ErrorReport, ModelError, UsageError

MOST_MODELS = 2000
EXAMPLE = "A URL is such as http://127.0.0.1:8000/v1"


def server_target(model: ModelInfo, servers: Mapping[str, ServerSpec]) -> ServerTarget | None:
    """Return where to ask a model of a server; None for a model of this machine.

    Raises:
        UsageError: if the settings do not name the server, or its key cannot be had.
        StorageError: if the disk refuses its key.
    """
    found = split_path(model.path) if model.container == "server" else None
    if found is None:
        return None
    name, model_id = found
    if name not in servers:
        raise UsageError(f"The server {name} is not in the settings", remedy=f"Add it: /server {name} URL")
    return target_of(name, servers[name], model_id)


def target_of(name: str, spec: ServerSpec, model: str = "") -> ServerTarget:
    """Return where to ask a server, for one of its models or for all of them.

    Raises:
        UsageError: if its key cannot be had.
        StorageError: if the disk refuses its key.
    """
    key = key_of(name, spec)
    return ServerTarget(name=name, url=spec.url, model=model, key=key, context_window=spec.context_window)


def key_of(name: str, spec: ServerSpec) -> str:
    """Return a server's key from the variable that it names, else from the file of keys; empty for none.

    Raises:
        UsageError: if the variable is not set, holds no key, or others can read the file.
        StorageError: if the disk refuses.
    """
    from quantchat.store.keys import checked_key, load_keys

    if not spec.key_env:
        return load_keys().get(name, "")
    key = os.environ.get(spec.key_env, "")
    if not key.strip():
        raise UsageError(
            f"{name} wants its API key from ${spec.key_env}, which is not set",
            remedy=f"Set it before quantchat starts, or keep a key in a file: /server {name}",
            code="server-key-missing",
        )
    return checked_key(key)


def key_words(name: str, spec: ServerSpec) -> str:
    """Say where a server's key comes from, and nothing of the key."""
    from quantchat import paths
    from quantchat.errors import QuantchatError

    try:
        there = bool(key_of(name, spec))
    except QuantchatError as error:
        return str(error)
    if spec.key_env:
        return f"from ${spec.key_env}"
    return f"in {paths.keys_file()}" if there else "none"


# Models


def models_of(name: str, spec: ServerSpec, listing: ServerListing) -> tuple[ModelInfo, ...]:
    """Return a server's models as the sidebar has them; what the settings name and the server does not, with a warning.

    Where the settings name models, only those.
    """
    told = {model.id: model for model in listing.models[:MOST_MODELS] if model.id}
    wanted = [told.get(known, ServedModel(id=known)) for known in spec.models] or list(told.values())
    return tuple(_model(name, spec, model, () if model.id in told else (_unlisted(name),)) for model in wanted)


def named_models(name: str, spec: ServerSpec) -> tuple[ModelInfo, ...]:
    """Return the models that the settings name, before their server was asked."""
    return tuple(_model(name, spec, ServedModel(id=model), ()) for model in spec.models)


def assumed_model(path: str, servers: Mapping[str, ServerSpec]) -> ModelInfo | None:
    """Return the model of a `server:NAME/ID` before its server was asked; None if it cannot be one."""
    server, model = split_path(path) or ("", "")
    if server not in servers or not model:
        return None
    return _model(server, servers[server], ServedModel(id=model), ())


def _model(name: str, spec: ServerSpec, served: ServedModel, problems: tuple[Problem, ...]) -> ModelInfo:
    return ModelInfo(
        path=server_path(name, served.id),
        # Some servers call a model by the path of its folder there.
        name=served.id.rstrip("/").rpartition("/")[2] if served.id.startswith("/") else served.id,
        root=spec.url,
        quant=QuantSpec(method="served"),
        container="server",
        context_window=served.context_window or spec.context_window or None,
        server=name,
        problems=problems,
    )


def _unlisted(name: str) -> Problem:
    cause = f"{name} does not list this model."
    return Problem(code="served-unlisted", severity="warning", cause=cause, remedy="It is asked for all the same.")


def unreachable(model: ModelInfo, error: ErrorReport) -> ModelInfo:
    """Return a model whose server does not answer any more: choosing it tries all the same."""
    others = tuple(problem for problem in model.problems if problem.code != "server-unreachable")
    problem = Problem(code="server-unreachable", severity="warning", cause=error.sentence(), remedy="")
    return msgspec.structs.replace(model, problems=(*others, problem))


def server_rows(name: str, spec: ServerSpec, listing: ServerListing | None) -> tuple[Row, ...]:
    """Say what is known of a server, and nothing of its key but where it comes from."""
    rows = [Row("Key", key_words(name, spec))]
    if listing is None:
        return (*rows, Row("Answer", "it was not asked yet"))
    if listing.error is not None:
        return (*rows, Row("Error", shortened(listing.error.sentence(), 1000), "error"))
    kind = [Row("Kind", shortened(listing.label, 80))] if listing.label else []
    return (*kind, *rows, Row("Answer", f"{answer_words(listing)} after {listing.seconds:.2f} s", "good"))


def answer_words(listing: ServerListing) -> str:
    """Say how many models came back."""
    count = len(listing.models)
    return "no models" if not count else "1 model" if count == 1 else f"{count:,} models"


def require_here(model: ModelInfo, what: str, remedy: str = "") -> None:
    """Raise `ModelError` for a model of a server, where something needs its files.

    Args:
        what: What cannot be done, such as `be measured`.
        remedy: What to do instead.
    """
    if model.container == "server":
        detail = f"It is on the server {model.server}, and its weights are not here"
        raise ModelError(f"{shortened(model.name, 80)} cannot {what}", detail, remedy, code="served-model")


# What users type


def completed_url(text: str) -> str:
    """Complete a URL that was typed: `box:8000` is `http://box:8000/v1`.

    Raises:
        UsageError: if it can be none, or holds a password or a query, in which keys are written at times.
    """
    url = text.strip()
    if url and "://" not in url:
        url = f"http://{url}"
    scheme, _, rest = url.partition("://")
    url = re.sub(r"(?<=[^/:])/+$", "", f"{scheme.lower()}://{rest}") if rest else url
    # The address of one of its requests, as examples for curl have it.
    url = re.sub(r"(?<=[^/])/(chat/completions|completions|models)$", "", url)
    if re.fullmatch(r"https?://[^\s/@?#]+", url):
        url += "/v1"
    if "@" in url or "?" in url:
        raise UsageError("The URL holds more than a place", "Settings hold no passwords and keys", "Give the key apart")
    try:
        return _reachable(msgspec.convert(url, Url))
    except ValueError:
        words = f"{shortened(text, 80)!r} is no URL" if text.strip() else "No URL was given"
        raise UsageError(words, remedy=EXAMPLE) from None


def _reachable(url: str) -> str:
    """Return a URL whose host and port can be ones.

    Raises:
        ValueError: if they cannot.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if not parts.hostname or parts.netloc.endswith(":") or parts.port == 0:
        raise ValueError(url)
    return url


def checked_name(text: str, taken: Collection[str] = ()) -> str:
    """Return the name of a new server.

    Raises:
        UsageError: if it can be none, or another server has it.
    """
    name = text.strip()
    if not re.fullmatch(NAME, name):
        what = f"{shortened(text, 60)!r} is no name of a server" if name else "The server needs a name"
        raise UsageError(what, remedy="Names are letters, digits, - and _, such as box")
    if name in taken:
        raise UsageError(f"There is a server {name} already", remedy="Take another name")
    return name


def checked_variable(text: str) -> str:
    """Return the name of an environment variable; empty for none.

    Raises:
        UsageError: if it can be none, as when the key itself was typed; the text is not repeated.
    """
    name = text.strip().removeprefix("$")
    if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise UsageError("That is no name of an environment variable", remedy="It is such as OPENAI_API_KEY")
    return name


def suggested_name(url: str, taken: Iterable[str] = ()) -> str:
    """Make a name out of a URL's host: `gpu-box` of `http://gpu-box.lan:8000/v1`."""
    host = host_of(url)
    place = host.partition(":")[0]
    numeric = bool(re.fullmatch(r"[\d.]+|\[.*", place))
    first = "local" if place in ("127.0.0.1", "localhost", "[") else place if numeric else _telling(place)
    name = re.sub(r"[^A-Za-z0-9]+", "-", first).strip("-")[:36] or "server"
    used = set(taken)
    return next(one for one in (name, *(f"{name}-{count}" for count in range(2, len(used) + 3))) if one not in used)


def _telling(place: str) -> str:
    """The part of a host's name that tells most: not `api` or `www`."""
    parts = [part for part in place.split(".") if part not in ("api", "www", "")]
    return parts[0] if parts else place
