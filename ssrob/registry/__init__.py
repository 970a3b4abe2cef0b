"""What a config may name, one row each: the tables that the parser and the code share.

A row says where a function lives (``"module:function"``), so that nothing here imports torch. Code outside the package
adds rows of its own (``LOSSES["mine"] = Loss(...)``) in a module that the config lists under ``plugins``.
May import: nothing of the package.
"""
