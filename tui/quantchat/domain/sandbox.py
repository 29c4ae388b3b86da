"""The environment in which chat templates run: jinja2's sandbox with what transformers gives to templates.

It follows `utils/chat_template_utils.py` of transformers 5.23, but for names that reach into Python.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any


def environment() -> Any:
    """Return the sandbox with all that transformers gives to templates."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` marks what the assistant says, for training; here it is only a block."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class PublicNamespace(Namespace):
        """Refuses names that begin with an underscore, which reach into Python."""

        def __init__(*args: Any, **named: Any) -> None:
            self, *rest = args
            _check(dict(*rest, **named))
            Namespace.__init__(self, *rest, **named)

        def __setitem__(self, name: str, value: Any) -> None:
            _check({name: value})
            super().__setitem__(name, value)

    class Dict:
        """What templates make objects with; the class itself would give them its attributes."""

        def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
            return dict(*args, **named)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def _check(names: dict[str, Any]) -> None:
        if hidden := [name for name in names if str(name).startswith("_")]:
            raise SecurityError(f"it stores {hidden[0]!r}, and names that begin with an underscore are refused")

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": Dict(),
        "namespace": PublicNamespace,
    }
    return environment
