"""What `import ssrob` offers, and that it costs nothing."""

import pydoc
import subprocess
import sys

import pytest
import ssrob


@pytest.mark.parametrize("name", [name for name in ssrob.__all__ if name != "__version__"])
def test_it_offers_what_people_use(name: str) -> None:
    offered = getattr(ssrob, name)
    assert callable(offered)
    assert offered.__module__.startswith("ssrob.")
    assert offered.__doc__
    assert name in dir(ssrob)
    assert name in pydoc.plain(pydoc.render_doc(ssrob))


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, ssrob; print(sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'ssrob' has no attribute 'attak_sweep'"):
        ssrob.attak_sweep  # noqa: B018
