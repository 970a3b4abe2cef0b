"""``python -m ssrob`` is the ``ssrob`` command; a job of a workflow has it run in a process that is ready at once."""

import sys

from ssrob.runtime import fork_client

if (code := fork_client.run()) is not None:
    sys.exit(code)

from ssrob.cli import main  # takes half a second

main()
