from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from quantchat import paths
from quantchat.store.themes import ANSI_COLOURS, COLOURS, ThemeFile, ThemeFolders, load_themes, read_theme

SHIPPED = paths.shipped_themes_dir()
INKS = ("foreground", "primary", "secondary", "accent", "success", "warning", "error")
PAPERS = ("background", "surface", "panel")


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dim, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def shipped() -> dict[str, ThemeFile]:
    themes, problems = load_themes(SHIPPED, Path("/nonexistent"))
    assert problems == []
    return themes


@pytest.fixture
def dirs(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "shipped", tmp_path / "user"
    for folder in folders:
        folder.mkdir()
    return folders


def theme_text(**changes: object) -> str:
    values = {"name": "plain", "dark": True} | dict.fromkeys(COLOURS, "#abc") | changes
    return tomlkit.dumps({key: value for key, value in values.items() if value is not None})


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_eight_themes_and_more_are_shipped() -> None:
    themes = shipped()
    assert {"nord", "gruvbox-dark", "catppuccin-mocha", "dracula", "high-contrast", "terminal"} < set(themes)
    assert len(themes) >= 8
    assert sum(not theme.dark for theme in themes.values()) >= 2
    assert all((SHIPPED / f"{name}.toml").exists() for name in themes)


@pytest.mark.parametrize("name", [name for name, theme in sorted(shipped().items()) if not theme.native])
def test_shipped_themes_can_be_read_by_anyone(name: str) -> None:
    theme = shipped()[name]
    high = name == "high-contrast"
    words = 7.0 if high or name.startswith("quantchat") else 4.5
    bars = dict.fromkeys(PAPERS, 7.0) if high else {"background": 4.5, "surface": 4.5, "panel": 4.0}
    weak = {
        (ink, paper): round(found, 2)
        for ink in INKS
        for paper, bar in bars.items()
        if (found := contrast(getattr(theme, ink), getattr(theme, paper))) < (words if ink == "foreground" else bar)
    }
    assert weak == {}
    pairs = [
        (theme.variables["block-cursor-foreground"], theme.variables["block-cursor-background"]),
        (theme.variables["block-cursor-blurred-foreground"], theme.variables["block-cursor-blurred-background"]),
        (theme.variables["input-cursor-foreground"], theme.variables["input-cursor-background"]),
        (theme.variables["footer-key-foreground"], theme.variables["footer-background"]),
        (theme.foreground, theme.variables["input-selection-background"]),
        (theme.foreground, theme.variables["screen-selection-background"]),
    ]
    assert [pair for pair in pairs if contrast(*pair) < 4.5] == []
    assert theme.dark == (luminance(theme.background) < luminance(theme.foreground))


@pytest.mark.parametrize("name", [name for name, theme in sorted(shipped().items()) if theme.native])
def test_a_theme_of_the_terminals_colours_has_no_other(name: str) -> None:
    theme = shipped()[name]
    colours = {getattr(theme, colour) for colour in COLOURS}
    styles = {"none", "bold", "reverse", "underline"}
    assert colours <= ANSI_COLOURS
    assert {value for key, value in theme.variables.items() if not key.endswith("-style")} <= ANSI_COLOURS
    assert {value for key, value in theme.variables.items() if key.endswith("-style")} <= styles


def test_the_users_theme_wins(dirs: tuple[Path, Path]) -> None:
    (dirs[0] / "a.toml").write_text(theme_text(primary="#111"))
    (dirs[0] / "b.toml").write_text(theme_text(name="other"))
    (dirs[1] / "mine.toml").write_text(theme_text(primary="#222"))
    (dirs[1] / "notes.txt").write_text("no theme")
    themes, problems = load_themes(*dirs)
    assert problems == []
    assert {name: theme.primary for name, theme in themes.items()} == {"plain": "#222", "other": "#abc"}


@pytest.mark.parametrize("colour", ["#12", "#1234567", "red", "ansi_pink", "#ggg", "", "#abc\n", "rgb(1,2,3)"])
def test_a_bad_colour_is_named_with_what_is_allowed(dirs: tuple[Path, Path], colour: str) -> None:
    path = dirs[1] / "bad.toml"
    path.write_text(theme_text(accent=colour))
    themes, (problem,) = load_themes(*dirs)
    assert themes == {}
    for part in (str(path), "`accent`", repr(colour), "#rrggbb"):
        assert part in problem.detail
    assert problem.title == "The theme bad cannot be used"


def test_a_bad_user_theme_leaves_the_shipped_one(dirs: tuple[Path, Path]) -> None:
    (dirs[0] / "a.toml").write_text(theme_text(primary="#111"))
    (dirs[1] / "a.toml").write_text(theme_text(primary="no"))
    themes, problems = load_themes(*dirs)
    assert themes["plain"].primary == "#111"
    assert len(problems) == 1


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        theme_text(name="no spaces", dark="yes", error=None, panel=3, primry="#fff")
        + "\n[variables]\nborder = 'url(x)'\n'Bad Name' = '#fff'\nfine = '#fff 40%'\ncount = 3\nink = 'ansi_pink 50%'\n"
    )
    theme, (problem,) = read_theme(path)
    assert theme is None
    assert {fault.split("`")[1] for fault in problem.detail.split("; ") if fault.count("`") > 1} >= {
        "name",
        "dark",
        "error",
        "panel",
        "primry",
        "variables.border",
        "variables.Bad Name",
        "variables.count",
        "variables.ink",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("border", "ansi_bright_red"),
        ("border", "#aabbcc 40%"),
        ("text-muted", "auto 60%"),
        ("block-cursor-foreground", "auto"),
        ("link-style", "bold underline"),
        ("link-style", "none"),
    ],
)
def test_variables_may_be_colours_and_styles(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "good.toml"
    path.write_text(theme_text(background="ansi_default") + f"\n[variables]\n{name} = '{value}'\n")
    theme, problems = read_theme(path)
    assert problems == []
    assert theme is not None
    assert theme.variables == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [("border", "bold"), ("border", "auto 60%"), ("link-style", "#fff"), ("panel", "50%"), ("foreground", "auto")],
)
def test_a_variable_of_the_wrong_kind_is_named(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(theme_text() + f"\n[variables]\n{name} = '{value}'\n")
    theme, (problem,) = read_theme(path)
    assert theme is None
    assert f"`variables.{name}`" in problem.detail


@pytest.mark.parametrize("content", [b"name = ", b"\xff", b""])
def test_what_is_no_theme_never_raises(dirs: tuple[Path, Path], content: bytes) -> None:
    (dirs[1] / "bad.toml").write_bytes(content)
    (dirs[1] / "folder.toml").mkdir()
    themes, problems = load_themes(*dirs)
    assert themes == {}
    assert len(problems) >= 2
    assert all("bad.toml" in p.detail or "folder.toml" in p.detail for p in problems)


def test_folders_that_are_missing_or_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    themes, problems = load_themes(tmp_path / "none", tmp_path / "file")
    assert themes == {}
    assert len(problems) == 1


def test_only_what_changed_is_read_again(dirs: tuple[Path, Path]) -> None:
    path = dirs[1] / "mine.toml"
    path.write_text(theme_text(primary="#111"))
    folders = ThemeFolders(*dirs)
    assert folders.look()
    assert not folders.look()
    path.write_text(theme_text(primary="#222222"))
    assert folders.look()
    assert folders.themes["plain"].primary == "#222222"
    path.unlink()
    assert folders.look()
    assert folders.themes == {}


def test_a_broken_file_leaves_its_theme_as_it_was_until_it_is_mended(dirs: tuple[Path, Path]) -> None:
    (dirs[0] / "plain.toml").write_text(theme_text(primary="#111"))
    path = dirs[1] / "mine.toml"
    path.write_text(theme_text(primary="#222"))
    folders = ThemeFolders(*dirs)
    folders.look()
    path.write_text("primary = ")
    assert folders.look()
    assert folders.themes["plain"].primary == "#222"
    assert len(folders.problems) == 1
    assert not folders.look()
    path.write_text(theme_text(primary="#333333"))
    assert folders.look()
    assert folders.themes["plain"].primary == "#333333"
    assert folders.problems == []
