"""Build the optional native files; everything else is declared in pyproject.toml."""

from setuptools import Extension, setup

NATIVE = {
    "dataset_store.core._cdc": "dataset_store/core/_cdc.c",
    "dataset_store.core._keys": "dataset_store/core/_keys.c",
    "dataset_store.local._files": "dataset_store/local/_files.c",
}

setup(
    ext_modules=[
        Extension(
            name,
            [source],
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        )
        for name, source in NATIVE.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
