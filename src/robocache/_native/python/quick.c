/* What an operation does at every call before its kernel runs, without the interpreter in between: know a call again,
   and hand a compiled kernel to the driver. `recent_calls.py` and `launch.py` do the same in Python, where this module
   could not be built, and say what is meant. PyTorch is met only through its Python objects, so that one build serves
   all its versions. */
#include "quick.h"

#include <stddef.h>
#include <stdint.h>

enum { VERSION = 2, MOST_SLOTS = 128, ALIGNED = 15, INVALID_CONTEXT = 201, OVERLAPS = 6 };

static PyObject *is_nested;

/* recall(kind, recent, how, tensors): what was found for a call like this one, or None.

   `kind` is torch.Tensor; `recent` holds tuples (how, accepts, found). A nested tensor has no strides, and to ask a
   guard for them would end the process. */
static PyObject *recall(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)self;
    if (count != 4 || !PyTuple_Check(arguments[1]) || !PyTuple_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "recall takes a class, a tuple, anything and a tuple");
        return NULL;
    }
    PyObject *kind = arguments[0], *recent = arguments[1], *how = arguments[2], *tensors = arguments[3];
    Py_ssize_t size = PyTuple_GET_SIZE(tensors);
    for (Py_ssize_t at = 0; at < size; ++at) {
        PyObject *one = PyTuple_GET_ITEM(tensors, at);
        if ((PyObject *)Py_TYPE(one) != kind)
            Py_RETURN_NONE;
        PyObject *nested = PyObject_GetAttr(one, is_nested);
        if (nested == NULL)
            return NULL;
        Py_DECREF(nested);
        if (nested != Py_False)
            Py_RETURN_NONE;
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(recent); ++at) {
        PyObject *entry = PyTuple_GET_ITEM(recent, at);
        if (!PyTuple_Check(entry) || PyTuple_GET_SIZE(entry) != 3) {
            PyErr_SetString(PyExc_TypeError, "a recent call is how, accepts and found");
            return NULL;
        }
        int is_alike = PyObject_RichCompareBool(PyTuple_GET_ITEM(entry, 0), how, Py_EQ);
        if (is_alike > 0) {
            PyObject *accepts = PyTuple_GET_ITEM(entry, 1);
            PyObject *accepted = PyObject_Vectorcall(accepts, ((PyTupleObject *)tensors)->ob_item, size, NULL);
            is_alike = accepted == NULL ? -1 : PyObject_IsTrue(accepted);
            Py_XDECREF(accepted);
        }
        if (is_alike < 0)
            return NULL;
        if (is_alike)
            return Py_NewRef(PyTuple_GET_ITEM(entry, 2));
    }
    Py_RETURN_NONE;
}

/* CUlaunchAttribute and CUlaunchConfig of cuda.h. */
typedef struct {
    int id, padding, value, rest[15];
} Attribute;

typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream;
    const Attribute *attributes;
    unsigned attribute_count;
} Configuration;

static const Attribute overlaps = {.id = OVERLAPS, .value = 1};

typedef int (*Launch)(const Configuration *, void *function, void **parameters, void **extra);

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *keeps, *current_device, *current_stream, *data_ptr;
    Launch launch;
    void *function;
    Configuration configuration;
    Py_ssize_t pointers, slots;
    uint64_t values[MOST_SLOTS]; /* the numbers, in their places; pointers are put before them at each call */
} Launcher;

/* 0, or -1 with an exception. */
static int pointer_of(Launcher *self, PyObject *item, uint64_t *pointer)
{
    if (PyLong_Check(item)) {
        *pointer = PyLong_AsUnsignedLongLong(item);
    } else {
        PyObject *number = ask(self->data_ptr, item);
        if (number == NULL)
            return -1;
        *pointer = PyLong_AsUnsignedLongLong(number);
        Py_DECREF(number);
    }
    return *pointer == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

static int number_of(PyObject *number, unsigned long long *value)
{
    if (number == NULL)
        return -1;
    *value = PyLong_AsUnsignedLongLongMask(number);
    Py_DECREF(number);
    return *value == (unsigned long long)-1 && PyErr_Occurred() ? -1 : 0;
}

/* launcher(device, items): True once the kernel is enqueued on the current stream of the device. False, and nothing
   done, where it is not the current one or a pointer is not aligned; None where this thread has not used it yet. */
static PyObject *enqueue(PyObject *object, PyObject *const *arguments, size_t flags, PyObject *names)
{
    Launcher *self = (Launcher *)object;
    PyObject *items = PyVectorcall_NARGS(flags) == 2 && names == NULL ? arguments[1] : NULL;
    if (items == NULL || !PyTuple_Check(items) || PyTuple_GET_SIZE(items) != self->pointers) {
        PyErr_Format(PyExc_TypeError, "a launcher takes a device and a tuple of %zd tensors", self->pointers);
        return NULL;
    }
    unsigned long long device, current, stream;
    if (number_of(Py_NewRef(arguments[0]), &device) || number_of(PyObject_CallNoArgs(self->current_device), &current))
        return NULL;
    if (device != current)
        Py_RETURN_FALSE;
    uint64_t values[MOST_SLOTS], together = 0;
    for (Py_ssize_t at = 0; at < self->pointers; ++at) {
        /* What is absent is passed as what stands before it. */
        if (at > 0 && PyTuple_GET_ITEM(items, at) == PyTuple_GET_ITEM(items, at - 1))
            values[at] = values[at - 1];
        else if (pointer_of(self, PyTuple_GET_ITEM(items, at), &values[at]))
            return NULL;
        together |= values[at];
    }
    if (together & ALIGNED)
        Py_RETURN_FALSE;
    if (number_of(PyObject_CallOneArg(self->current_stream, arguments[0]), &stream))
        return NULL;
    void *parameters[MOST_SLOTS];
    for (Py_ssize_t at = 0; at < self->slots; ++at) {
        if (at >= self->pointers)
            values[at] = self->values[at];
        parameters[at] = &values[at];
    }
    Configuration configuration = self->configuration;
    configuration.stream = (void *)(uintptr_t)stream;
    int code;
    /* The driver waits here when its queue is full, perhaps for a function of the host that needs the interpreter. */
    Py_BEGIN_ALLOW_THREADS
    code = self->launch(&configuration, self->function, parameters, NULL);
    Py_END_ALLOW_THREADS
    if (code == INVALID_CONTEXT)
        Py_RETURN_NONE;
    if (code != 0) {
        PyErr_Format(PyExc_RuntimeError, "cuLaunchKernelEx failed with CUDA error %d", code);
        return NULL;
    }
    Py_RETURN_TRUE;
}

static int put_numbers(Launcher *self, PyObject *numbers)
{
    Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    if (self->pointers < 1 || self->slots < self->pointers + count || self->slots > MOST_SLOTS) {
        PyErr_Format(PyExc_ValueError, "%zd pointers and %zd numbers do not fit %zd slots, of which at most %d may be",
                     self->pointers, count, self->slots, MOST_SLOTS);
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; ++at) {
        unsigned long long value;
        if (number_of(Py_NewRef(PyTuple_GET_ITEM(numbers, at)), &value))
            return -1;
        self->values[self->pointers + at] = value;
    }
    return 0;
}

/* Launcher(keeps, (launch, function), (grid, threads, shared, overlaps), (pointers, slots), numbers,
            (current_device, current_stream, data_ptr)) */
static PyObject *launcher_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    PyObject *keeps, *numbers, *current_device, *current_stream, *data_ptr;
    unsigned long long launch, function;
    unsigned grid, threads, shared;
    int may_overlap;
    Py_ssize_t pointers, slots;
    if (names != NULL && PyDict_GET_SIZE(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "Launcher takes no arguments by name");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O(KK)(IIIp)(nn)O!(OOO)", &keeps, &launch, &function, &grid, &threads, &shared,
                          &may_overlap, &pointers, &slots, &PyTuple_Type, &numbers, &current_device, &current_stream,
                          &data_ptr))
        return NULL;
    Launcher *self = (Launcher *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->call = enqueue;
    self->keeps = Py_NewRef(keeps);
    self->current_device = Py_NewRef(current_device);
    self->current_stream = Py_NewRef(current_stream);
    self->data_ptr = Py_NewRef(data_ptr);
    self->launch = (Launch)(uintptr_t)launch;
    self->function = (void *)(uintptr_t)function;
    self->configuration = (Configuration){{grid, 1, 1}, {threads, 1, 1}, shared, NULL, NULL, 0};
    if (may_overlap) {
        self->configuration.attributes = &overlaps;
        self->configuration.attribute_count = 1;
    }
    self->pointers = pointers;
    self->slots = slots;
    if (put_numbers(self, numbers)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int launcher_traverse(PyObject *object, visitproc visit, void *arg)
{
    Launcher *self = (Launcher *)object;
    Py_VISIT(self->keeps);
    Py_VISIT(self->current_device);
    Py_VISIT(self->current_stream);
    Py_VISIT(self->data_ptr);
    return 0;
}

static int launcher_clear(PyObject *object)
{
    Launcher *self = (Launcher *)object;
    Py_CLEAR(self->keeps);
    Py_CLEAR(self->current_device);
    Py_CLEAR(self->current_stream);
    Py_CLEAR(self->data_ptr);
    return 0;
}

static void launcher_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    launcher_clear(object);
    Py_TYPE(object)->tp_free(object);
}

static PyTypeObject launcher_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "robocache._native.quick.Launcher",
    .tp_doc = "One compiled kernel, one grid, and its numbers in place.",
    .tp_basicsize = sizeof(Launcher),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = launcher_new,
    .tp_traverse = launcher_traverse,
    .tp_clear = launcher_clear,
    .tp_dealloc = launcher_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Launcher, call),
};

static PyMethodDef functions[] = {
    {"recall", (PyCFunction)(void (*)(void))recall, METH_FASTCALL, "What was found for a call like this one, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "robocache._native.quick",
    .m_doc = "The way from a call to its kernel, without the interpreter in between.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit_quick(void)
{
    is_nested = PyUnicode_InternFromString("is_nested");
    if (is_nested == NULL || PyType_Ready(&launcher_type) < 0 || PyType_Ready(&host_call_type) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddObjectRef(made, "Launcher", (PyObject *)&launcher_type) < 0 ||
        PyModule_AddObjectRef(made, "HostCall", (PyObject *)&host_call_type) < 0 ||
        PyModule_AddIntConstant(made, "MOST_SLOTS", MOST_SLOTS) < 0 ||
        PyModule_AddIntConstant(made, "MOST_FIELDS", MOST_FIELDS) < 0 ||
        PyModule_AddIntConstant(made, "VERSION", VERSION) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
