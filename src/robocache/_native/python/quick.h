/* What the files of this module share. */
#ifndef ROBOCACHE_QUICK_H
#define ROBOCACHE_QUICK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum { MOST_FIELDS = 256 }; /* of the struct that the CPU library takes: enough for 16 streams */

extern PyTypeObject host_call_type;

/* The result of a method without arguments. Methods written in C are called past the interpreter's own checks. */
static inline PyObject *ask(PyObject *method, PyObject *one)
{
    if (Py_TYPE(method) == &PyMethodDescr_Type) {
        PyMethodDescrObject *descriptor = (PyMethodDescrObject *)method;
        if (descriptor->d_method->ml_flags == METH_NOARGS && PyObject_TypeCheck(one, PyDescr_TYPE(descriptor)))
            return descriptor->d_method->ml_meth(one, NULL);
    }
    return PyObject_CallOneArg(method, one);
}

#endif
