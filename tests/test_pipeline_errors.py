from __future__ import annotations

import pytest

from pipeline import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree_and_in_its_drawing(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.PipelineError)
    assert errors.__doc__ is not None
    assert name in errors.__doc__
