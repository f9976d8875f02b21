from __future__ import annotations

import pytest

from pipeline import errors

CLASSES = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_in_the_tree_and_in_its_drawing(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.PipelineError)
    assert errors.__doc__ is not None
    assert name in errors.__doc__
