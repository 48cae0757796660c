"""Writes a layer's tar from a description on standard input: an array of entries in JSON.

    layer.py TAR

An entry has a `name`, a `kind` (d, f, l for a symbolic link, h for a hard link), a `link`, its
`data` or a file that it is taken `from`, and `pax` records. It is written as Python's tarfile does, which ends names of directories
in a slash as BuildKit does.
"""

import io
import json
import sys
import tarfile

KINDS = {"d": tarfile.DIRTYPE, "f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}

with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as tar:
    for entry in json.load(sys.stdin):
        info = tarfile.TarInfo(entry["name"])
        info.type = KINDS[entry["kind"]]
        info.linkname = entry.get("link", "")
        info.mtime = 1700000000.1234567
        info.mode = 0
        info.pax_headers = entry.get("pax", {})
        data = entry.get("data", "").encode()
        if "from" in entry:
            data = open(entry["from"], "rb").read()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
