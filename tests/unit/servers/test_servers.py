"""Servers in the settings, their keys, their models, and what a person types about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat import paths
from quantchat.catalog.scan import find_model
from quantchat.domain.models import ModelInfo
from quantchat.domain.served import ServedModel, ServerListing
from quantchat.domain.servers import ServerSpec, split_path
from quantchat.errors import ErrorReport, ModelError, UsageError
from quantchat.services.servers import (
    assumed_model,
    checked_name,
    checked_variable,
    completed_url,
    key_of,
    key_words,
    models_of,
    require_here,
    server_rows,
    server_target,
    suggested_name,
    unreachable,
)
from quantchat.store.keys import keep_key
from quantchat.store.settings import load_settings, update_entry, update_settings

URL = "http://127.0.0.1:8000/v1"
SPEC = ServerSpec(url=URL)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))


def written(text: str) -> Path:
    path = paths.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listing(**models: int) -> ServerListing:
    told = tuple(ServedModel(id=name, context_window=window) for name, window in models.items())
    return ServerListing(server="box", kind="vllm", label="vLLM", models=told)


# Settings


def test_servers_are_read_from_the_settings() -> None:
    written(f'[servers.box]\nurl = "{URL}"\n[servers.lab]\nurl = "https://lab.example/v1"\nkey_env = "LAB_KEY"\n')
    settings, problems = load_settings()
    assert problems == []
    assert settings.servers == {"box": SPEC, "lab": ServerSpec(url="https://lab.example/v1", key_env="LAB_KEY")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[servers.box]\n", "`servers.box.url` is missing"),
        ('[servers.box]\nulr = "http://x/v1"\n', "did you mean `url`?"),
        ('[servers.box]\nurl = "box:8000"\n', "'http://127.0.0.1:8000/v1'"),
        ('[servers.box]\nurl = "http://me:secret@box/v1"\n', "`servers.box.url`"),
        ('[servers.box]\nurl = "http://box/v1?key=1"\n', "`servers.box.url`"),
        ('[servers."a/b"]\nurl = "http://box/v1"\n', "'a/b' is not allowed"),
        (f'[servers.box]\nurl = "{URL}"\nkey = "sk-1"\n', "`servers.box.key` is not a known key"),
        ('[servers]\nbox = "http://box/v1"\n', "`servers.box`"),
    ],
)
def test_what_is_wrong_with_a_server_is_said_and_the_others_count(text: str, words: str) -> None:
    written(text + '[servers.good]\nurl = "http://good/v1"\n')
    settings, problems = load_settings()
    assert any(words in problem.detail for problem in problems)
    assert settings.servers["good"].url == "http://good/v1"


def test_changing_one_server_leaves_the_others_as_they_are_written() -> None:
    path = written('theme = "x" # mine\n[servers.lab]\nulr = "http://lab/v1" # a slip\n')
    assert update_entry("servers", "box", ServerSpec(url=URL, models=("a",))).servers["box"].models == ("a",)
    update_entry("servers", "box", ServerSpec(url=URL, key_env="KEY"))
    assert load_settings()[0].servers == {"box": ServerSpec(url=URL, key_env="KEY")}
    update_entry("servers", "box", None)
    update_entry("servers", "absent", None)
    assert load_settings()[0].servers == {}
    assert path.read_text().strip() == 'theme = "x" # mine\n[servers.lab]\nulr = "http://lab/v1" # a slip'


def test_a_server_that_is_not_allowed_is_not_written() -> None:
    path = written("")
    with pytest.raises(UsageError):
        update_entry("servers", "a b", SPEC)
    with pytest.raises(UsageError):
        update_entry("servers", "box", ServerSpec(url="nonsense"))
    assert path.read_text() == ""


def test_another_setting_can_be_changed_beside_a_wrong_server() -> None:
    written('[servers.lab]\nulr = "http://lab/v1"\n')
    assert update_settings(theme="quantchat-light").theme == "quantchat-light"


# Keys


def test_a_key_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_key("box", "from-the-file")
    monkeypatch.setenv("BOX_KEY", " from-the-variable\n")
    spec = ServerSpec(url=URL, key_env="BOX_KEY")
    assert key_of("box", spec) == "from-the-variable"
    assert key_of("box", SPEC) == "from-the-file"
    assert key_of("other", SPEC) == ""


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match="BOX_KEY"):
        key_of("box", ServerSpec(url=URL, key_env="BOX_KEY"))


def test_words_about_a_key_do_not_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX_KEY", "sk-secret")
    keep_key("box", "sk-secret")
    for spec in (SPEC, ServerSpec(url=URL, key_env="BOX_KEY"), ServerSpec(url=URL, key_env="NONE")):
        rows = server_rows("box", spec, listing(a=1))
        assert "sk-secret" not in " ".join(row.value for row in rows)
    assert key_words("lab", SPEC) == "none"
    assert "BOX_KEY" in key_words("box", ServerSpec(url=URL, key_env="BOX_KEY"))


def test_a_target_has_the_key_and_does_not_show_it() -> None:
    keep_key("box", "sk-secret")
    model = models_of("box", SPEC, listing(a=1))[0]
    target = server_target(model, {"box": SPEC})
    assert target is not None
    assert (target.name, target.url, target.model, target.key) == ("box", URL, "a", "sk-secret")
    assert "sk-secret" not in repr(target)


def test_a_target_wants_its_server_in_the_settings() -> None:
    model = models_of("box", SPEC, listing(a=1))[0]
    with pytest.raises(UsageError, match="not in the settings"):
        server_target(model, {})
    assert server_target(ModelInfo(path="/m", name="m"), {}) is None


# Models


def test_models_of_a_server() -> None:
    first, second = models_of("box", ServerSpec(url=URL, context_window=2048), listing(**{"org/a": 4096, "b": 0}))
    assert (first.path, first.name, first.server) == ("server:box/org/a", "org/a", "box")
    assert split_path(first.path) == ("box", "org/a")
    assert (first.context_window, second.context_window) == (4096, 2048)
    assert first.loadable
    assert first.quant.label() == "served"


def test_only_models_that_the_settings_name() -> None:
    spec = ServerSpec(url=URL, models=("c", "a"))
    named, listed = models_of("box", spec, listing(a=1, b=2))
    assert (named.name, [problem.code for problem in named.problems]) == ("c", ["served-unlisted"])
    assert (listed.name, listed.problems) == ("a", ())
    assert named.loadable


def test_a_model_of_a_silent_server_can_still_be_tried() -> None:
    model = models_of("box", SPEC, listing(a=1))[0]
    report = ErrorReport(code="server-unreachable", title="It does not answer")
    gone = unreachable(unreachable(model, report), report)
    assert [problem.code for problem in gone.problems] == ["server-unreachable"]
    assert gone.loadable


def test_a_model_is_taken_for_there_before_its_server_answers() -> None:
    model = assumed_model("server:box/org/a", {"box": SPEC})
    assert model is not None
    assert (model.name, model.server) == ("org/a", "box")
    for path in ("server:lab/a", "server:box/", "server:box", "/models/a", ""):
        assert assumed_model(path, {"box": SPEC}) is None


def test_served_models_are_found_by_name_path_and_server() -> None:
    models = (
        *models_of("box", SPEC, listing(**{"org/a": 1, "b": 1})),
        *models_of("lab", SPEC, listing(b=1)),
        ModelInfo(path="/m/c", name="c"),
    )
    assert find_model("server:lab/b", models).server == "lab"
    assert find_model("box/b", models).server == "box"
    assert find_model("org", models).path == "server:box/org/a"
    assert find_model("/m/c", models).name == "c"
    with pytest.raises(ModelError, match="server:box/b, server:lab/b"):
        find_model("b", models)


def test_what_needs_files_refuses_by_name() -> None:
    model = models_of("box", SPEC, listing(a=1))[0]
    with pytest.raises(ModelError, match=r"a cannot be measured\. It is on the server box"):
        require_here(model, "be measured")
    require_here(ModelInfo(path="/m", name="m"), "be measured")


# What is typed


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("box:8000", "http://box:8000/v1"),
        (" http://box:8000/ ", "http://box:8000/v1"),
        ("https://api.example.com/openai/v1/", "https://api.example.com/openai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("HTTPS://box:8000", "https://box:8000/v1"),
        ("http://box:8000/v1/chat/completions", "http://box:8000/v1"),
        ("http://box:8000/v1/models/", "http://box:8000/v1"),
    ],
)
def test_a_url_is_completed(typed: str, url: str) -> None:
    assert completed_url(typed) == url


@pytest.mark.parametrize("typed", ["", "ftp://box/v1", "http://", "http://a b/v1", "http://u:p@box", "box/v1?key=sk-1"])
def test_what_is_no_url_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        completed_url(typed)


@pytest.mark.parametrize("typed", ["::1", "http://[::1", "box:99999", "box:http", "box:", ":8000", "http:/box:8000"])
def test_a_url_whose_host_or_port_cannot_be_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        completed_url(typed)


@pytest.mark.parametrize("typed", ["", "a/b", "a.b", "-a", "ü", "x" * 41])
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        checked_name(typed)


def test_a_name_that_is_taken_is_refused() -> None:
    assert checked_name(" box ") == "box"
    with pytest.raises(UsageError, match="already"):
        checked_name("box", {"box"})


def test_a_key_in_the_place_of_a_variable_is_not_repeated() -> None:
    assert checked_variable(" $BOX_KEY ") == "BOX_KEY"
    with pytest.raises(UsageError) as caught:
        checked_variable("sk-secret-1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8000/v1", "local"),
        ("http://gpu-box.lan:8000/v1", "gpu-box"),
        ("https://api.example.com/v1", "example"),
        ("http://10.0.0.7:8000/v1", "10-0-0-7"),
        ("http://[::1]:8000/v1", "local"),
    ],
)
def test_a_name_is_made_from_the_url(url: str, name: str) -> None:
    assert suggested_name(url) == name
    assert checked_name(name)
    assert suggested_name(url, {name}) == f"{name}-2"
    assert suggested_name(url, {name, f"{name}-2"}) == f"{name}-3"
