/* A call of the CPU library again, with other tensors than the last time, without the interpreter in between.
   `StreamsPlan` of resample_trajectories/native.py does the same in Python, where this module could not be built. */
#include "quick.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int64_t (*Function)(const void *);

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *data_ptr, *is_neg, *threads;
    Function function;
    uint64_t mask; /* bits that no address may have */
    Py_ssize_t fields, threads_at, tensors;
    uint16_t places[MOST_FIELDS]; /* of each tensor's address */
    uint64_t values[MOST_FIELDS];
} HostCall;

/* 1: the library may read the tensor where it lies; 0: not; -1: an exception. */
static int address_of(HostCall *self, PyObject *tensor, uint64_t *address)
{
    PyObject *answer = ask(self->is_neg, tensor);
    if (answer == NULL)
        return -1;
    int is_positive = answer == Py_False;
    Py_DECREF(answer);
    PyObject *number = ask(self->data_ptr, tensor);
    if (number == NULL)
        return -1;
    *address = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (*address == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    return is_positive && !(*address & self->mask);
}

/* call(tensors): True once the call is over; False, and nothing done, where a tensor must be copied first. */
static PyObject *call_host(PyObject *object, PyObject *const *arguments, size_t flags, PyObject *names)
{
    HostCall *self = (HostCall *)object;
    PyObject *tensors = PyVectorcall_NARGS(flags) == 1 && names == NULL ? arguments[0] : NULL;
    if (tensors == NULL || !PyTuple_Check(tensors) || PyTuple_GET_SIZE(tensors) != self->tensors) {
        PyErr_Format(PyExc_TypeError, "a host call takes a tuple of %zd tensors", self->tensors);
        return NULL;
    }
    uint64_t values[MOST_FIELDS];
    memcpy(values, self->values, (size_t)self->fields * sizeof *values);
    for (Py_ssize_t at = 0; at < self->tensors; ++at) {
        int is_readable = address_of(self, PyTuple_GET_ITEM(tensors, at), &values[self->places[at]]);
        if (is_readable < 0)
            return NULL;
        if (!is_readable)
            Py_RETURN_FALSE;
    }
    PyObject *threads = PyObject_CallNoArgs(self->threads);
    if (threads == NULL)
        return NULL;
    values[self->threads_at] = PyLong_AsUnsignedLongLong(threads);
    Py_DECREF(threads);
    if (values[self->threads_at] == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    self->function(values);
    Py_END_ALLOW_THREADS
    Py_RETURN_TRUE;
}

/* 0, or -1 with an exception. */
static int put_places(HostCall *self, PyObject *places)
{
    self->tensors = PyTuple_GET_SIZE(places);
    int fits = self->tensors <= MOST_FIELDS && self->threads_at >= 0 && self->threads_at < self->fields;
    for (Py_ssize_t at = 0; fits && at < self->tensors; ++at) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(places, at));
        if (place == -1 && PyErr_Occurred())
            return -1;
        fits = place >= 0 && place < self->fields;
        self->places[at] = (uint16_t)place;
    }
    if (!fits)
        PyErr_Format(PyExc_ValueError, "%zd addresses and a number of threads do not fit %zd fields, of which at most %d may be",
                     self->tensors, self->fields, MOST_FIELDS);
    return fits ? 0 : -1;
}

/* HostCall(function, fields, places, threads_at, mask, (data_ptr, is_neg, threads)) */
static PyObject *host_call_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    unsigned long long function, mask;
    const char *fields;
    Py_ssize_t bytes, threads_at;
    PyObject *places, *data_ptr, *is_neg, *threads;
    if (names != NULL && PyDict_GET_SIZE(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "HostCall takes no arguments by name");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "Ky#O!nK(OOO)", &function, &fields, &bytes, &PyTuple_Type, &places, &threads_at, &mask,
                          &data_ptr, &is_neg, &threads))
        return NULL;
    if (bytes % (Py_ssize_t)sizeof(uint64_t) || bytes > (Py_ssize_t)sizeof(uint64_t) * MOST_FIELDS) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are not whole fields of 8, or more than %d", bytes, MOST_FIELDS);
        return NULL;
    }
    HostCall *self = (HostCall *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->call = call_host;
    self->data_ptr = Py_NewRef(data_ptr);
    self->is_neg = Py_NewRef(is_neg);
    self->threads = Py_NewRef(threads);
    self->function = (Function)(uintptr_t)function;
    self->mask = mask;
    self->fields = bytes / (Py_ssize_t)sizeof(uint64_t);
    self->threads_at = threads_at;
    memcpy(self->values, fields, (size_t)bytes);
    if (put_places(self, places)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int host_call_traverse(PyObject *object, visitproc visit, void *arg)
{
    HostCall *self = (HostCall *)object;
    Py_VISIT(self->data_ptr);
    Py_VISIT(self->is_neg);
    Py_VISIT(self->threads);
    return 0;
}

static int host_call_clear(PyObject *object)
{
    HostCall *self = (HostCall *)object;
    Py_CLEAR(self->data_ptr);
    Py_CLEAR(self->is_neg);
    Py_CLEAR(self->threads);
    return 0;
}

static void host_call_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    host_call_clear(object);
    Py_TYPE(object)->tp_free(object);
}

PyTypeObject host_call_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "robocache._native.quick.HostCall",
    .tp_doc = "One call of the CPU library, with its numbers in place.",
    .tp_basicsize = sizeof(HostCall),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = host_call_new,
    .tp_traverse = host_call_traverse,
    .tp_clear = host_call_clear,
    .tp_dealloc = host_call_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(HostCall, call),
};
