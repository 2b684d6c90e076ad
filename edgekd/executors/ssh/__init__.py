"""Boards over SSH: the connection, the store of files, detached jobs, and the executor that uses them."""
