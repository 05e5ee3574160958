"""What the tests of a study's runs warn of, said once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.pages import findings_of
from tests.made_up import study_table

TABLE = study_table({("random", 1.0): [(0.9, 0.5), (0.9, 0.6)]})


@pytest.mark.parametrize(
    ("warned", "said"),
    [
        (["", ""], ""),
        ([None, None], ""),
        (["at chance", ""], "1 of 2 evaluations are in doubt: at chance"),
        (["at chance", "at chance"], "2 of 2 evaluations are in doubt: at chance"),
        (["12.5 % of 497", "9.9 % of 497"], "2 of 2 evaluations are in doubt: 9.9 to 12.5 % of 497"),
        (["9 of 10", "9 in 10"], "2 of 2 evaluations are in doubt: 9 of 10; 9 in 10"),
        (["at chance", "masked"], "2 of 2 evaluations are in doubt: at chance; masked"),
    ],
)
def test_each_doubt_is_said_once(warned: list[str | None], said: str) -> None:
    table = TABLE.assign(warnings=warned)
    assert doubts(table) == said
    assert findings_of(table).endswith(f"**{said}.**") == bool(said)


def test_an_evaluation_that_arms_share_counts_once() -> None:
    table = TABLE.assign(warnings=["at chance", ""], key=["a", "b"], evaluation=["c", "c"])
    twice = pd.concat([table, table.assign(arm="redraw"), table.assign(robust=np.nan, warnings="")], ignore_index=True)
    assert doubts(twice) == "1 of 2 evaluations are in doubt: at chance"


def test_a_table_without_tests_has_no_doubts() -> None:
    assert doubts(TABLE) == ""


def test_the_head_of_a_figure_has_the_first_words_of_each() -> None:
    chance = "clean accuracy is at chance: {} % of 497 images; train for longer"
    table = TABLE.assign(warnings=[chance.format(9.9), chance.format(10.1)])
    assert doubts(table, brief=True) == "2 of 2 evaluations are in doubt: clean accuracy is at chance"
