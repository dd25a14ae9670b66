"""Exit codes have words, errors have exit codes."""

import pytest

from tinytrain_dist.foundation import errors
from tinytrain_dist.foundation.errors import ExitCode, TinyTrainError, nearest

DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 130, 143}


def test_the_codes_are_the_documented_ones() -> None:
    assert {int(code) for code in ExitCode} == DOCUMENTED


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_code_has_words_of_its_own(code: ExitCode) -> None:
    assert code.describe().strip()
    assert [x for x in ExitCode if x.describe() == code.describe()] == [code]


def test_every_error_ends_with_a_failing_code() -> None:
    kinds = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, TinyTrainError)]
    assert len(kinds) > 5
    for kind in kinds:
        assert issubclass(kind, ValueError)
        assert kind.exit_code not in (ExitCode.DONE, ExitCode.PARTIAL), kind


def test_nearest_names_the_close_ones_or_all() -> None:
    assert nearest("mcunett", ["mcunet", "other"]) == "did you mean 'mcunet'?"
    assert nearest("zzz", ["b", "a"]) == "allowed: a, b"
