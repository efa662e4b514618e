from __future__ import annotations

import pytest

from xybridd.core.category import ErrorCategory, categorize, category_named


@pytest.mark.parametrize(
    ("message", "category"),
    [
        ("", ErrorCategory.UNKNOWN),
        ("MODEL NOT FOUND", ErrorCategory.MODEL_LOADING),
        ("upload failed over http", ErrorCategory.MODEL_LOADING),
        ("the input to the gpu", ErrorCategory.PREPROCESSING),
        ("information", ErrorCategory.PREPROCESSING),
        ("ONNX network", ErrorCategory.INFERENCE),
        ("wrong output of cuda", ErrorCategory.POSTPROCESSING),
        ("postprocess", ErrorCategory.POSTPROCESSING),
        ("http 500, gpu idle", ErrorCategory.NETWORK),
        ("cuda out of memory", ErrorCategory.HARDWARE),
        ("npu gone", ErrorCategory.HARDWARE),
        ("boom", ErrorCategory.MEMORY),
        ("preprocessing", ErrorCategory.PREPROCESSING),
    ],
)
def test_the_first_row_with_a_word_decides(message: str, category: ErrorCategory) -> None:
    assert categorize(message) is category


@pytest.mark.parametrize("category", list(ErrorCategory))
def test_both_spellings_name_a_category(category: ErrorCategory) -> None:
    assert category_named(category.value) is category
    assert category_named(category.wire_name) is category


def test_the_other_spelling_is_the_references_as_str() -> None:
    assert [category.wire_name for category in ErrorCategory] == [
        "model_loading", "preprocessing", "inference", "postprocessing", "network", "hardware", "memory", "unknown",
    ]  # fmt: skip
