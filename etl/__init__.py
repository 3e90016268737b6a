"""The stages of the method over a corpus with Dask: read, chunk, embed, index, mine, interleave, pack.

Importing this package switches off Dask's conversion of object columns to strings, which would silently turn columns
of lists into text.
"""

import dask

dask.config.set({"dataframe.convert-string": False})
