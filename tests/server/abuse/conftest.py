"""Promise of all that is here: whatever clients do, the proxy refuses it or serves it, goes on
serving others, and takes no more memory for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import abused
import pytest
from abused import Proxy
from raw_client import ALLOWED_GROWTH_BYTES, at_rest, serves
from small_tokenizers import byte_level, write_folder


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = write_folder(tmp_path_factory.mktemp("abuse"), byte_level())
    with abused.proxy(folder) as proxy:
        yield proxy


@pytest.fixture
async def proxy(running: Proxy) -> AsyncIterator[Proxy]:
    """It answers before and after, has nothing left to do then, and is about as large."""
    assert await serves(running)
    before = running.rss_bytes
    yield running
    assert await serves(running)
    await at_rest(running)
    assert running.rss_bytes - before < ALLOWED_GROWTH_BYTES
