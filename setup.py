"""What is compiled, where there is a C compiler; everything else about the package is in pyproject.toml.

The CPU library is plain C called through ctypes, so one build serves every Python. Its inner loops are compiled once
for each instruction set, and the processor chooses at run time: a wheel built here runs elsewhere. Beside it stands a
small extension module, which needs Python's headers as Triton does; without it launches take a few microseconds more.
"""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("src/robocache/_native")
LIBRARY = "robocache._native.librobocache"
FLAGS = [
    "-std=c11",
    "-fno-fast-math",  # whatever CFLAGS say: NaN and infinity mean something here
    "-O3",
    "-g0",
    # Results agree bit for bit with the other backends only where no product and sum are fused.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
]
VARIANTS = {"base": []}
DISPENSABLE = "avx512bf16"  # compilers before 2020 do not know it
if platform.machine().lower() in {"x86_64", "amd64"}:
    VARIANTS["avx2"] = ["-mavx2", "-mf16c"]
    VARIANTS["avx512"] = [*VARIANTS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
    VARIANTS[DISPENSABLE] = [*VARIANTS["avx512"], "-mavx512bf16"]


def choose_compiler() -> None:
    """Where the compiler that Python was built with is not here, take the system's own."""
    wanted = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(wanted.split()[0]) is None and "CC" not in os.environ:
        found = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        if found is not None:
            os.environ["CC"] = found


class BuildNative(build_ext):
    """Builds a library without a Python API beside the usual modules; the installation succeeds where that fails."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the library's inner loops once a variant, the rest once, and link them."""
        if ext.name != LIBRARY:
            super().build_extension(ext)
            return
        macros = [("HAS_X86_VARIANTS", None)] if len(VARIANTS) > 1 else []
        objects = []
        for name, instructions in VARIANTS.items():
            try:
                objects += self.compiler.compile(
                    [str(SOURCES / "loops.c")],
                    output_dir=str(Path(self.build_temp, name)),
                    macros=[("VARIANT", name)],
                    extra_postargs=FLAGS + instructions,
                    depends=ext.depends,
                )
            except CompileError:
                if name != DISPENSABLE:
                    raise
            else:
                macros += [("HAS_AVX512BF16", None)] if name == DISPENSABLE else []
        objects += self.compiler.compile(
            [source for source in ext.sources if not source.endswith("loops.c")],
            output_dir=self.build_temp,
            macros=macros,
            extra_postargs=FLAGS,
            depends=ext.depends,
        )
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, target, libraries=["m"], extra_postargs=["-pthread"])

    def get_ext_filename(self, fullname: str) -> str:
        """No Python version in the name of the library: it knows none."""
        if not LIBRARY.endswith(fullname):
            return super().get_ext_filename(fullname)
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None of Python's for the library."""
        return ext.export_symbols if ext.name == LIBRARY else super().get_export_symbols(ext)


choose_compiler()
setup(
    ext_modules=[
        Extension(
            LIBRARY,
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for pattern in ("*.h", "*.inc") for path in SOURCES.glob(pattern)),
            optional=True,
        ),
        Extension(
            "robocache._native.quick",
            sources=sorted(str(path) for path in (SOURCES / "python").glob("*.c")),
            depends=[str(SOURCES / "python" / "quick.h")],
            extra_compile_args=FLAGS,
            optional=True,
        ),
    ],
    cmdclass={"build_ext": BuildNative},
)
