"""Time and peak memory of the library's steps against a textbook implementation of the same ones: `make bench`."""
