// Makes the shared object importable, so that setuptools builds and installs it as an extension.
// Its functions are called by ctypes, which releases the interpreter lock; see native_library.py.

#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT,
                             "runtime.backend.cpu._native",
                             "CPU kernels; use runtime.backend.cpu.native_library.",
                             -1,
                             nullptr,
                             nullptr,
                             nullptr,
                             nullptr,
                             nullptr};

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&module); }
