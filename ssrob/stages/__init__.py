"""One module per kind of stage that looks at a trained model or makes its data.

May import: `training`, `runtime`, the field's own parts and what they may.
"""
