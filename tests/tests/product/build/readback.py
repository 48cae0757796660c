"""Reads layers of a Windows image as another engine would, and complains of what it would not take.

    readback.py IMAGE.TAR DIRECTORY BELOW

IMAGE.TAR is what `docker save` wrote. Of each layer but the BELOW lowest: what tar and PAX say is
checked, hives are written to DIRECTORY/<number of the layer>/<name>, and the entries are printed,
an array per layer, in JSON.
"""

import base64
import json
import os
import struct
import sys
import tarfile

TYPES = {tarfile.DIRTYPE: 0o040000, tarfile.REGTYPE: 0o100000, tarfile.SYMTYPE: 0o120000}
TIMES = ("mtime", "atime", "ctime", "LIBARCHIVE.creationtime")


def check(condition, entry, words):
    if not condition:
        sys.exit(f"{entry.name}: {words}")


def descriptor(entry, text):
    """A self-relative security descriptor with an owner and a list of who may do what."""
    raw = base64.b64decode(text, validate=True)
    revision, _, control, owner, group, _, dacl = struct.unpack_from("<BBHIIII", raw)
    check(revision == 1 and control & 0x8000, entry, "no self-relative descriptor")
    for offset in (owner, group):
        check(0 < offset < len(raw) and raw[offset] == 1, entry, "no owner or group")
    if control & 4 and dacl:
        size = struct.unpack_from("<H", raw, dacl + 2)[0]
        check(dacl + size <= len(raw), entry, "its list is longer than the descriptor")


def one(entry):
    name = entry.name
    folder, _, last = name.rpartition("/")
    check(name.split("/")[0] in ("Files", "Hives"), entry, "is in no part of a layer")
    check(not name.startswith(("/", "./")) and ".." not in name.split("/"), entry, "leads elsewhere")
    check((entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), entry, "has an owner")
    if last.startswith(".wh."):
        check(entry.isreg() and entry.size == 0, entry, "is an odd whiteout")
        return {"name": name, "kind": "whiteout"}
    if entry.type == tarfile.LNKTYPE:
        check(entry.linkname.startswith("Files/"), entry, "is a link to outside of the files")
        return {"name": name, "kind": "hard link", "link": entry.linkname}
    check(entry.type in TYPES, entry, "is of an odd type")
    check(entry.mode & 0o7777 == 0, entry, f"has a mode of its own: {entry.mode:o}")
    pax = entry.pax_headers
    for key in TIMES:
        check(key in pax or key == "mtime", entry, f"lacks {key}")
        # What Windows can keep: not finer than 100 ns.
        fraction = pax.get(key, "0").partition(".")[2]
        check(len(fraction) <= 7 and not fraction.endswith("0"), entry, f"{key}={pax.get(key)}")
    attributes = int(pax["MSWINDOWS.fileattr"])
    check(bool(attributes & 0x10) == entry.isdir() or entry.issym(), entry, f"{attributes:x}")
    check(bool(attributes & 0x400) == entry.issym(), entry, f"{attributes:x}")
    check("MSWINDOWS.sd" not in pax, entry, "has a descriptor of the old kind")
    if "MSWINDOWS.rawsd" in pax:
        descriptor(entry, pax["MSWINDOWS.rawsd"])
    kind = "directory" if entry.isdir() else "link" if entry.issym() else "file"
    found = {"name": name, "kind": kind, "attributes": attributes, "mtime": entry.mtime}
    if entry.issym():
        found["link"] = entry.linkname
    return found


def layer(tar, directory, number):
    entries, seen = [], set()
    for entry in tar:
        name = entry.name.lower()
        check(name not in seen, entry, "is there twice")
        parent = name.rpartition("/")[0]
        check(not parent or parent in seen, entry, "comes before its directory")
        seen.add(name)
        entries.append(one(entry))
        if entry.isreg() and (name.startswith("hives/") or name.endswith("/ntuser.dat")):
            data = tar.extractfile(entry).read()
            check(data[:4] == b"regf", entry, "is no hive")
            os.makedirs(f"{directory}/{number}", exist_ok=True)
            with open(f"{directory}/{number}/{entry.name.rpartition('/')[2]}", "wb") as hive:
                hive.write(data)
    return entries


with tarfile.open(sys.argv[1]) as image:
    manifest = json.load(image.extractfile("manifest.json"))[0]
    config = json.load(image.extractfile(manifest["Config"]))
    if config["os"] != "windows" or not config.get("os.version"):
        sys.exit("not an image for Windows")
    layers = []
    for number, name in enumerate(manifest["Layers"]):
        if number < int(sys.argv[3]):
            continue
        with tarfile.open(fileobj=image.extractfile(name), mode="r:") as tar:
            layers.append(layer(tar, sys.argv[2], number - int(sys.argv[3])))
print(json.dumps(layers))
