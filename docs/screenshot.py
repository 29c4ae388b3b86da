"""Make docs/screen.svg: the real program with the demo's model, asked two questions.

Run it from a checkout after a change of the screen: `python docs/screenshot.py`. Needs the demo's model
(`quantchat demo --prepare`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from quantchat import paths
from quantchat.domain.attachments import Draft

OUTPUT = Path(__file__).parent / "screen.svg"
QUESTIONS = ("What is the capital of France?", "What is a lighthouse for?")
SIZE = (112, 32)
PATIENCE = 300.0


async def photograph(models: Path, output: Path, theme: str | None) -> None:
    """Run the program without a terminal, ask, and export the screen."""
    from quantchat.ui.app import QuantchatApp

    app = QuantchatApp(models_dirs=[models], model="GPTQ", theme=theme)
    async with app.run_test(size=SIZE) as pilot:
        desk = app.desk

        async def until(test: object) -> None:
            assert callable(test)
            for _ in range(int(PATIENCE / 0.1)):
                if test():
                    return
                await pilot.pause(0.1)
            raise SystemExit(f"nothing happened; the activity line says {app.chat.query_one('#activity')}")

        await until(lambda: desk.library.loaded)
        for question in QUESTIONS:
            app.chat.submit(Draft(question))
            await until(lambda: not desk.conversation.busy and not desk.conversation.waiting)
        await pilot.pause(1.5)
        output.write_text(app.export_screenshot(title="quantchat", simplify=True))
        await desk.close()


def main() -> None:
    models = Path(os.environ.get("QUANTCHAT_SCREEN_MODELS") or paths.models_dir())
    theme = sys.argv[1] if len(sys.argv) > 1 else None
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else OUTPUT
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "config"
        config.mkdir()
        (config / "config.toml").write_text("[sampling]\ntemperature = 0.0\nmax_new_tokens = 160\n")
        os.environ["QUANTCHAT_HOME"] = home
        asyncio.run(photograph(models, output, theme))


if __name__ == "__main__":
    main()
