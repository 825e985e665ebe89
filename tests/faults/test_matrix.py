"""One cell of each family of the fault matrix; `make faults` runs all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults import cells, matrix
from tests.faults.matrix import Cell
from tests.faults.site import Site

QUICK = [cell for cell in cells.ALL if cell.quick]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with Site() as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.name)
async def test_invariants_hold_after(cell: Cell, site: Site) -> None:
    outcome = await matrix.run(site, cell)
    assert outcome.good, "\n".join([*outcome.wrong, outcome.logs])


def test_every_family_has_a_quick_cell() -> None:
    assert {cell.family for cell in QUICK} == {cell.family for cell in cells.ALL}


def test_no_two_cells_have_one_name() -> None:
    assert len({cell.name for cell in cells.ALL}) == len(cells.ALL)
