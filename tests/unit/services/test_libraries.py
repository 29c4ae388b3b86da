"""Libraries of presets and prompts: taken in whole or not at all, and given out again."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat import paths
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.presets import SHIPPED
from quantchat.errors import StorageError, UsageError
from quantchat.services.libraries import Kind, export_to, files_of, import_from, texts_of
from quantchat.services.presets import Presets
from quantchat.services.promptbook import PromptBook
from quantchat.store.library import NamedFiles

KINDS: tuple[Kind, ...] = ("presets", "prompts")
TEXTS: dict[Kind, dict[str, str]] = {
    "presets": {"careful": "temperature = 0.1", "wild": 'temperature = 2.0\nstop = ["###"]'},
    "prompts": {"review": "Look at\n{code}", "short": 'Say "{what}" in\n\none line.\\'},
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))


def fill(kind: Kind, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS[kind].items():
        (folder / f"{name}{files_of(kind).suffixes[0]}").write_text(f"{text}\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["bundle.toml", "folder"])
def test_what_is_exported_can_be_imported_elsewhere(
    kind: Kind, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(kind, files_of(kind).folder)
    out = tmp_path / target
    if target == "folder":
        out.mkdir()
    export_to(kind, texts_of(kind), str(out))
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "other"))
    done = import_from(kind, [str(out)])
    assert sorted(done.added) == sorted(TEXTS[kind])
    assert texts_of(kind) == TEXTS[kind]
    assert import_from(kind, [str(out)]).same == done.added


@pytest.mark.parametrize("kind", KINDS)
def test_single_files_are_called_as_they_are(kind: Kind, tmp_path: Path) -> None:
    fill(kind, tmp_path / "some")
    files = sorted(str(path) for path in (tmp_path / "some").iterdir())
    assert sorted(import_from(kind, files).added) == sorted(TEXTS[kind])
    assert texts_of(kind) == TEXTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_replaced_unless_told_and_the_old_one_is_kept(kind: Kind, tmp_path: Path) -> None:
    fill(kind, tmp_path / "some")
    name = next(iter(TEXTS[kind]))
    files_of(kind).write(name, "seed = 1")
    with pytest.raises(UsageError, match=name):
        import_from(kind, [str(tmp_path / "some")])
    assert files_of(kind).names() == [name]
    done = import_from(kind, [str(tmp_path / "some")], replace=True)
    assert done.replaced == [name]
    assert texts_of(kind) == TEXTS[kind]
    assert [path.read_text() for path in paths.trash_dir().iterdir()] == ["seed = 1\n"]


def test_one_wrong_file_among_many_lets_none_in(tmp_path: Path) -> None:
    fill("presets", tmp_path / "some")
    (tmp_path / "some" / "zzz.toml").write_text("top_k = 3\ntemperature = 99.0\n")
    with pytest.raises(UsageError, match=r"zzz\.toml, line 2: `temperature`"):
        import_from("presets", [str(tmp_path / "some")])
    assert files_of("presets").names() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_refuses_in_the_middle_leaves_all_as_it_was(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(kind, tmp_path / "some")
    first, second = TEXTS[kind]
    files_of(kind).write(first, "seed = 1")
    write = NamedFiles.write

    def refuse(files: NamedFiles, name: str, text: str, *, replace: bool = False) -> Path:
        if name == second:
            raise StorageError("The disk is full")
        return write(files, name, text, replace=replace)

    # The new one is written first, the one that replaces another last.
    monkeypatch.setattr(NamedFiles, "write", refuse)
    with pytest.raises(StorageError):
        import_from(kind, [str(tmp_path / "some")], replace=True)
    assert texts_of(kind) == {first: "seed = 1"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_sources_that_are_none_are_named(kind: Kind, what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=what):
        import_from(kind, [str(tmp_path / what)])


def test_a_whole_config_file_gives_its_presets(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('theme = "x"\n[presets.mine]\ntop_k = 3\n')
    assert import_from("presets", [str(tmp_path / "config.toml")]).added == ["mine"]
    assert texts_of("presets") == {"mine": "top_k = 3"}


def test_an_export_does_not_write_over_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.toml"
    out.write_text("mine")
    with pytest.raises(UsageError, match="out"):
        export_to("prompts", TEXTS["prompts"], str(out))
    assert out.read_text() == "mine"
    export_to("prompts", TEXTS["prompts"], str(out), replace=True)
    assert "Look at" in out.read_text()


# Presets


def test_files_win_over_shipped_presets_and_config_toml_over_files() -> None:
    fill("presets", paths.presets_dir())
    (paths.presets_dir() / "exact.toml").write_text("seed = 1\n")
    (paths.presets_dir() / "set.toml").write_text("seed = 1\n")
    presets = Presets({"set": SamplingOverrides(seed=2)})
    known = presets.known()
    assert known["careful"] == SamplingOverrides(temperature=0.1)
    assert known["exact"] == SamplingOverrides(seed=1)
    assert known["set"] == SamplingOverrides(seed=2)
    assert known["creative"] == SHIPPED["creative"]
    homes = [presets.home_of(name) for name in ("careful", "exact", "set", "creative", "none")]
    assert homes == ["yours", "yours", "config.toml", "shipped", ""]


def test_a_file_that_comes_or_changes_is_seen_and_a_wrong_one_told() -> None:
    presets = Presets({})
    assert "late" not in presets.known()
    paths.presets_dir().mkdir(parents=True)
    (paths.presets_dir() / "late.toml").write_text("top_k = 3\ntemprature = 1.0\n")
    (paths.presets_dir() / "broken.toml").write_text("= 1\n")
    assert presets.known()["late"] == SamplingOverrides(top_k=3)
    told = [problem.sentence() for problem in presets.problems]
    assert len(told) == 2
    assert any("late.toml, line 2" in words and "did you mean `temperature`" in words for words in told)
    assert any("broken.toml" in words and "line 1" in words for words in told)


def test_presets_are_saved_as_files_and_taken_away_again() -> None:
    presets = Presets({"set": SamplingOverrides(seed=2)})
    presets.save("mine", SamplingOverrides(temperature=0.3, stop=("a\nb",)))
    assert presets.known()["mine"] == SamplingOverrides(temperature=0.3, stop=("a\nb",))
    with pytest.raises(UsageError, match="already"):
        presets.save("mine", SamplingOverrides())
    for name in ("set", "exact"):
        with pytest.raises(UsageError, match="kept in"):
            presets.remove(name)
    with pytest.raises(UsageError, match=r"config\.toml"):
        presets.save("set", SamplingOverrides())
    presets.remove("mine")
    assert "mine" not in presets.known()


# Prompts


def test_prompts_are_found_in_any_case_and_wrong_files_told() -> None:
    fill("prompts", paths.prompts_dir())
    (paths.prompts_dir() / "bad.md").write_bytes(b"\xff")
    book = PromptBook()
    templates, problems = book.look()
    assert [one.name for one in templates] == ["review", "short"]
    assert len(problems) == 1
    assert book.find("REVIEW").fields == ("code",)
    with pytest.raises(UsageError, match="Did you mean review"):
        book.find("reviews")
