"""Prints the effective registry of a hive and the differencing hives over it, lowest first.

Reads with hivex, which knows nothing of layers: their marks are read at the offsets of its
handles. Merges by walking down the layers, key by key.
"""

import json
import sys

import hivex

MERGE, TOMBSTONE, LOCAL, TREE = range(4)


class Layer:
    def __init__(self, path):
        self.hive = hivex.Hivex(path)
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.layered = self.bytes[24] == 6 and self.bytes[144] & 2

    def root(self):
        return Node(self, self.hive.root())


class Node:
    def __init__(self, layer, handle):
        self.layer, self.handle = layer, handle
        byte = layer.bytes[handle + 4 + 13] if layer.layered else 0
        self.semantics = byte & 3

    def children(self):
        hive = self.layer.hive
        return {hive.node_name(h).upper(): Node(self.layer, h) for h in hive.node_children(self.handle)}

    def values(self):
        hive, found = self.layer.hive, {}
        for handle in hive.node_values(self.handle):
            name = hive.value_key(handle)
            gone = self.layer.layered and self.layer.bytes[handle + 4 + 16] & 2
            kind, data = (None, b"") if gone else hive.value_value(handle)
            found[name.upper()] = None if gone else (name, kind, data.hex())
        return found


def walk(nodes):
    """The effective key of nodes of one path, top first; None if there is none."""
    reached, own = [], []
    own_ended = False
    for node in nodes:
        if node.semantics == TOMBSTONE:
            break
        reached.append(node)
        if not own_ended:
            own.append(node)
        own_ended = own_ended or node.semantics == LOCAL
        if node.semantics == TREE:
            break
    if not reached:
        return None
    values = {}
    for node in own:
        for name, value in node.values().items():
            values.setdefault(name, value)
    below = {}
    for node in reached:
        for name, child in node.children().items():
            below.setdefault(name, []).append(child)
    keys = {name: walk(found) for name, found in below.items()}
    return {
        "values": {name: value for name, value in values.items() if value},
        "keys": {name: key for name, key in keys.items() if key is not None},
    }


layers = [Layer(path) for path in sys.argv[1:]]
print(json.dumps(walk([layer.root() for layer in reversed(layers)]), sort_keys=True))
