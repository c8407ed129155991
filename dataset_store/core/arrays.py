"""numpy, loaded when an array is first made, and the types of arrays.

Many commands make none, and loading numpy takes longer than all else that they do. Everything here takes `np` from this
module, and nothing makes an array, or a type of one, while modules are loaded.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["I64", "U8", "U32", "U64", "Array", "Bool", "Rows", "Void", "np"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]
    U32 = NDArray[np.uint32]
    U64 = NDArray[np.uint64]
    I64 = NDArray[np.int64]
    Bool = NDArray[np.bool_]
    Rows = NDArray[np.intp]
    Void = NDArray[np.void]
    Array = NDArray[Any]
else:
    U8 = U32 = U64 = I64 = Bool = Rows = Void = Array = Any

    class _Numpy(ModuleType):
        """Becomes numpy by the first look at it; the import's own lock keeps threads apart."""

        def __getattr__(self, name: str) -> Any:
            module = import_module("numpy")
            self.__dict__.update(vars(module))
            return getattr(module, name)

    np = _Numpy("numpy")
