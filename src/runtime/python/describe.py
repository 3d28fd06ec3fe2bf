"""Prints, as one line of JSON, what this interpreter is and where its parts are."""

import json
import os
import platform
import sys
import sysconfig

try:
    import ssl

    certificates = ssl.get_default_verify_paths().openssl_cafile
except ImportError:
    certificates = None

print(json.dumps({
    "version": list(sys.version_info[:2]),
    # In a virtual environment the base interpreter is the real one.
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "build": sys.version.replace("\n", " "),
    "libc": " ".join(platform.libc_ver()).strip(),
    "folders": sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}),
    "certificates": certificates,
}))
