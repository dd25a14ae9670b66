"""Option parsing shared by the verbs: unknown options name the nearest ones; ``--json`` everywhere."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NoReturn

from tinytrain_dist.foundation.errors import ConfigError, nearest


class VerbParser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``ConfigError`` instead of exiting, and suggests near names."""

    def __init__(self, verb: str, *, description: str, example: str) -> None:
        super().__init__(
            prog=f"tinytrain {verb}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Return the parsed options; raises ``ConfigError`` for anything unknown."""
        options, unknown = self.parse_known_args(argv)
        if unknown:
            known = [text for action in self._actions for text in action.option_strings if text.startswith("--")]
            word = unknown[0].split("=", 1)[0]
            raise ConfigError(f"{self.prog}: unknown argument {unknown[0]!r}; {nearest(word, known)}")
        return options

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
