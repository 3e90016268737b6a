"""The stages of the method over a corpus with Dask: read, chunk, embed, index, mine, interleave, pack.

Each is a function on lazy Dask dataframes here, and a `run` that writes parts in the module of its name. Importing this
package switches off Dask's conversion of object columns to strings, which would silently turn columns of lists into
text.
"""
