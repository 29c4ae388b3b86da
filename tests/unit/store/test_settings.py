from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat import paths
from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import StorageError, UsageError
from quantchat.store.fields import line_of
from quantchat.store.settings import Settings, load_settings, update_settings
from quantchat.store.state import UiState, load_state, save_state

FILE = """\
# my box
theme = "nord"  # calm
models_dirs = ["/data/models"]

[sampling]
# greedy is dull
temperature = 0.2
stop = ["###"]

[keys]
stop = "ctrl+x"
"""


@pytest.fixture
def config(home: Path) -> Path:
    path = paths.config_file()
    path.parent.mkdir(parents=True)
    return path


def test_no_file_means_the_defaults(home: Path) -> None:
    assert load_settings() == (Settings(), [])
    assert Settings().theme == "quantchat-dark"
    assert not home.exists()


def test_reads_all_of_it(config: Path) -> None:
    config.write_text("\ufeff" + FILE)
    settings, problems = load_settings()
    assert problems == []
    assert settings == Settings(
        theme="nord",
        models_dirs=["/data/models"],
        sampling=SamplingOverrides(temperature=0.2, stop=("###",)),
        keys={"stop": "ctrl+x"},
    )


@pytest.mark.parametrize("broken", [b'theme = "x"\nmodels_dirs = [', b'theme = "x"\ntheme = "y"', b"theme = '\xff'"])
def test_a_broken_file_is_told_and_never_overwritten(config: Path, broken: bytes) -> None:
    config.write_bytes(broken)
    settings, (problem,) = load_settings()
    assert settings == Settings()
    assert problem.code == "settings-unreadable"
    assert str(config) in problem.detail
    assert "line" in problem.detail or "UTF-8" in problem.detail
    with pytest.raises(UsageError, match="does not parse"):
        update_settings(theme="nord")
    assert config.read_bytes() == broken


def test_wrong_values_cost_only_themselves(config: Path) -> None:
    config.write_text(
        'theme = 3\nkernel = "marlin"\n[sampling]\ntop_p = 0.5\ntemperature = 99\n[keys]\nstop = 1\ncopy = "f5"\n'
    )
    settings, problems = load_settings()
    assert settings == Settings(kernel="marlin", sampling=SamplingOverrides(top_p=0.5), keys={"copy": "f5"})
    where = {(p.code, p.detail.removeprefix(str(config)).split("`")[1], p.detail.split(":")[0][-6:]) for p in problems}
    assert where == {
        ("setting-wrong", "theme", "line 1"),
        ("setting-wrong", "sampling.temperature", "line 5"),
        ("setting-wrong", "keys.stop", "line 7"),
    }


def test_unknown_keys_are_told_with_the_likely_one(config: Path) -> None:
    config.write_text('temes = 1\ntheme = "nord"\n[sampling]\ntemprature = 1.0\n')
    settings, problems = load_settings()
    assert settings == Settings(theme="nord")
    assert {p.code for p in problems} == {"setting-unknown"}
    assert "`temes` is not a known key; did you mean `theme`?" in problems[0].detail
    assert "line 4: `sampling.temprature`" in problems[1].detail
    assert "did you mean `temperature`" in problems[1].detail


def test_a_file_that_cannot_be_read(config: Path) -> None:
    config.mkdir()
    settings, (problem,) = load_settings()
    assert settings == Settings()
    assert problem.code == "storage"


@given(text=st.text(st.sampled_from("theme=\"[]\nsampling.=1{}'#")))
def test_no_file_stops_the_program(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(text)
    assert isinstance(load_settings(path)[0], Settings)


def test_a_change_keeps_comments_and_order(config: Path) -> None:
    config.write_text(FILE)
    settings = update_settings(
        theme="gruvbox", kernel="marlin", sampling=SamplingOverrides(temperature=0.9, top_k=5), keys={"stop": "f9"}
    )
    text = config.read_text()
    assert load_settings() == (settings, [])
    assert settings.sampling == SamplingOverrides(temperature=0.9, top_k=5)
    assert (settings.kernel, settings.keys, settings.models_dirs) == ("marlin", {"stop": "f9"}, ["/data/models"])
    for kept in ("# my box", 'theme = "gruvbox"  # calm', "# greedy is dull"):
        assert kept in text
    assert text.index("kernel") < text.index("[sampling]") < text.index("[keys]")
    assert config.stat().st_mode & 0o777 == 0o600


def test_changes_from_nothing_and_back(home: Path) -> None:
    update_settings(sampling=SamplingOverrides(seed=7), models_dirs=["/a"], allow_pickle=True)
    settings = update_settings(theme="nord", device="cpu", allow_pickle=None)
    assert load_settings() == (settings, [])
    assert settings == Settings(theme="nord", device="cpu", models_dirs=["/a"], sampling=SamplingOverrides(seed=7))


@pytest.mark.parametrize(
    "change",
    [{"theme": 3}, {"tehme": "x"}, {"sampling": {"temperature": -1}}, {"parallel_turns": 0}, {"parallel_turns": 17}],
)
def test_a_wrong_change_is_refused(config: Path, change: dict[str, object]) -> None:
    config.write_text(FILE)
    with pytest.raises(UsageError, match="not allowed"):
        update_settings(**change)
    assert config.read_text() == FILE


def test_a_full_disk_keeps_the_settings(small_disk: Path, fill_disk: Callable[[Path], Path]) -> None:
    config = small_disk / "config.toml"
    config.write_text(FILE)
    fill_disk(small_disk)
    with pytest.raises(StorageError, match="The disk is full"):
        update_settings(config, theme="other")
    assert config.read_text() == FILE


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [("a = 1\n'b' = 2", "b", 2), ("[t]\na = 1", "a", 0), ("a=0\n[t]\n[u.v]\na = 1", "u.v.a", 4), ("t.a = 1", "t.a", 0)],
)
def test_line_of(text: str, key: str, line: int) -> None:
    assert line_of(text, key) == line


def test_state_comes_back(home: Path) -> None:
    assert load_state() == UiState()
    state = UiState(last_session="s", last_model="/m", sidebar_hidden=True)
    save_state(state)
    assert load_state() == state
    assert paths.state_file().stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"last_model": 3}', b"\xff", b'{"last_model": "\xff"}'])
def test_broken_state_starts_afresh(home: Path, broken: bytes) -> None:
    save_state(UiState(last_model="/m"))
    paths.state_file().write_bytes(broken)
    assert load_state() == UiState()


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ('placement = "cuda:0"', True),
        ('placement = "cuda:0,cuda:1"', True),
        ('placement = "cuda:0=2, cuda:1=0.5"', True),
        ('placement = "cuda:0=2,"', False),
        ('placement = "cuda:0=1..2"', False),
        ('placement = "gpu0"', False),
        ('decoding = "eager"', True),
        ('decoding = "graph"', False),
        ("kv_cache_gib = 0", True),
        ("kv_cache_gib = 12.5", True),
        ("kv_cache_gib = -1", False),
        ("kv_cache_host_gib = 4", True),
        ("idle_unload_minutes = 30", True),
        ("idle_unload_minutes = -1", False),
        ("idle_unload_minutes = 100000", False),
    ],
)
def test_settings_of_the_engine_have_bounds(config: Path, line: str, fine: bool) -> None:
    config.write_text(line + "\n")
    settings, problems = load_settings()
    assert (not problems) == fine
    assert (settings != Settings()) == fine
    assert not any("regex" in problem.detail for problem in problems)


def test_a_list_keeps_the_comments_of_the_items_that_stay(config: Path) -> None:
    config.write_text('# mine\nmodels_dirs = [\n  "/a",  # first disk\n  "/b",  # second disk\n]\ntheme = "nord"\n')
    assert update_settings(models_dirs=["/a", "/b", "~/c"]).models_dirs == ["/a", "/b", "~/c"]
    assert "# first disk" in config.read_text()
    assert update_settings(models_dirs=["/b", "~/c"]).models_dirs == ["/b", "~/c"]
    text = config.read_text()
    assert "# mine" in text
    assert "# second disk" in text
    assert "/a" not in text
    assert update_settings(models_dirs=["~/c", "/b"]).models_dirs == ["~/c", "/b"]
    assert update_settings(models_dirs=[]).models_dirs == []
    assert config.read_text().endswith('theme = "nord"\n')
