"""``python -m ssrob`` is the ``ssrob`` command."""

from ssrob.cli import main

main()
