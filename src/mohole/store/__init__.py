"""Activations on disk: shards that are sorted runs, a shuffle that is a merge of runs, a stream of rows in order."""

from mohole.store.columns import RowFormat
from mohole.store.order import Documents, Order
from mohole.store.store import Store
from mohole.store.write import write_store

__all__ = ["Documents", "Order", "RowFormat", "Store", "write_store"]
