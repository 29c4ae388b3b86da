"""Texts that would command a terminal, reorder its lines, or take effect as markup."""

from __future__ import annotations

import random

SEQUENCES = (
    "\x1b[31mred",
    "\x1b[38;2;1;2;3mcolour",
    "\x9b31mC1",
    "\x1b[5mblink\x1b[8mhidden",
    "\x1b[2J\x1b[03;07Hmoved",
    "\x1b[6n",
    "\x1b[c\x1b[>c\x1b[>0q",
    "\x1b[?1049l\x1b[?25h",
    "\x1bc",
    "\x1b[18t\x1b[21t",
    "\x1b]0;owned\x07",
    "\x1b]2;owned\x1b\\",
    "\x9d0;owned\x9c",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]1337;File=inline=1:AAAA\x07",
    "\x1b]9;notify\x07\x1b]777;notify;a;b\x07",
    "\x1bP$qm\x1b\\",
    "\x1bPtmux;\x1b\x1b]52;c;b3duZWQ=\x07\x1b\\",
    "\x90q#0;2;0;0;0#0~~\x9c",
    "\x1b_Gf=24;AAAA\x1b\\",
    "\x1b^private\x1b\\",
    "\x1bXstring\x1b\\",
    "\x1b(0lqqk\x1b(B\x0e\x0f",
    "\x1b[201~typed",
    "\x1b[12;1r\x1bM",
    "a\rb\x08c\x7fd\x07e\x00f\x0bg\x0ch",
    "\x1b",
    "\x1b[",
    "\x9b",
    "\x1b]0;",
)
ORDERS = (
    "\u202egnp.exe",
    "a\u202db\u202c",
    "\u2066x\u2067y\u2068z\u2069",
    "\u061c\u200e\u200f",
    "line\u2028separator\u2029paragraph",
    "\x85next\x84",
)
WIDTHS = (
    "z" + "\u0301\u0302\u0336\u0489" * 60 + "algo",
    "\u0301starts with a mark",
    "\u2705\ufe0f \u2764\ufe0f 1\ufe0f\u20e3",
    "👩\u200d👩\u200d👧\u200d👦",
    "\u200d" * 50 + "joined",
    "👍🏽 🫨 🇩🇪",
    "漢字かな交じり文",
    "नमस्ते สวัสดี مرحبا שלום",
    "ﷺ 𒐫 ꧅",
    "a\tb\t\tc",
    "\ufeffmark \ufffe\uffff \ufff9a\ufffab\ufffb",
    "\U000e0041\U000e0042tags",
    "\ue000private\U0010fffd",
)
MARKUP = (
    "[bold red]x[/]",
    "[@click=app.quit]x[/]",
    "[/x]",
    "[link=http://evil.example]y[/link]",
    "[[",
    "\\[b]z",
    "$text-accent %s {0} {{ }}",
    "[on red] [/on red]",
)
ATTACKS = (*SEQUENCES, *ORDERS, *WIDTHS, *MARKUP)
_MARKDOWN = (
    "# ",
    "- ",
    "> ",
    "`",
    "```\n",
    "\n```\n",
    "| a | b |\n|---|---|\n| ",
    "**",
    "[x](",
    "![y](",
    ")",
    "$$",
    "\n",
)


class Hostile:
    """A source of such texts, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, pieces: int = 6) -> str:
        """Some attacks, some of them cut or spliced, among plain words, Markdown and characters of any kind."""
        return "".join(self._piece() for _ in range(self._random.randint(1, pieces)))

    def _piece(self) -> str:
        dice = self._random
        attack = dice.choice(ATTACKS)
        match dice.randrange(6):
            case 0:
                return attack[: dice.randrange(len(attack) + 1)]
            case 1:
                return " " + "".join(chr(self._code()) for _ in range(dice.randrange(1, 8))) + " "
            case 2:
                return dice.choice(_MARKDOWN)
            case _:
                return f" {attack} "

    def _code(self) -> int:
        dice = self._random
        code = dice.choice(
            (
                dice.randrange(0xA0),
                dice.randrange(0x300, 0x370),
                dice.randrange(0x2000, 0x2070),
                dice.randrange(0x20000),
            )
        )
        return 0x20 if 0xD800 <= code < 0xE000 else code
