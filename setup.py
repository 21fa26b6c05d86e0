"""Wheels with the compiled CPU kernels: $ASR_WHEEL_KERNELS=1 compiles them and marks the wheel for its platform.

Without it the wheel is the same for every platform, and the kernels are compiled at their first use.
"""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WITH_KERNELS = os.environ.get("ASR_WHEEL_KERNELS") == "1"


class BuildWithKernels(build_py):
    """Put the compiled kernels beside their sources in the wheel."""

    def run(self):
        """Copy the package and compile."""
        super().run()
        if not WITH_KERNELS:
            return
        # By its path: asr.recurrent imports PyTorch, which a wheel is built without.
        sys.path.insert(0, str(ROOT))
        spec = importlib.util.spec_from_file_location(
            "kernels", ROOT / "asr" / "recurrent" / "cpu" / "build.py"
        )
        kernels = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
        target = Path(self.build_lib, kernels.prebuilt().relative_to(ROOT))
        kernels.compile_library(target, kernels.find_compiler())


class PlatformDistribution(Distribution):
    """What holds a compiled library belongs among the packages of its platform; auditwheel refuses it elsewhere."""

    def has_ext_modules(self):
        """Tell whether the wheel is for one platform."""
        return WITH_KERNELS


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3 of one platform: the kernels know nothing of Python."""

    def get_tag(self):
        """Return the tags of Python, of its binary interface and of the platform."""
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
)
