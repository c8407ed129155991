/* The compiled twin of dataset_store.core.chunking.cut_ends_reference: the same cuts, a thousand times faster.
 *
 * Promises: portable C99, no allocation but the list of ends (at most one word per `minimum` bytes), the GIL is
 * released while bytes are read. Never does I/O, and keeps no state between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { TABLE_WORDS = 256, WINDOW = 64 };

typedef struct {
    uint64_t once[TABLE_WORDS];  /* the table of the format */
    uint64_t twice[TABLE_WORDS]; /* the same, shifted by one, so that the hash moves two bytes per step */
    uint64_t limit;              /* a hash below it marks a candidate */
    Py_ssize_t minimum, maximum; /* bytes; WINDOW <= minimum < maximum */
} Chunker;

/* Length of the chunk that begins at p, or 0 if the n bytes there do not settle it. */
static Py_ssize_t
chunk_length(const Chunker *c, const unsigned char *p, Py_ssize_t n)
{
    const Py_ssize_t last = n < c->maximum ? n : c->maximum; /* bytes that this chunk may take */
    const uint64_t limit = c->limit;
    uint64_t h = 0; /* over the bytes before e; a byte more than WINDOW back has left it at the top */
    Py_ssize_t e;

    if (n < c->minimum)
        return 0;
    for (e = c->minimum - WINDOW; e < c->minimum; e++)
        h = (h << 1) + c->once[p[e]];
    if (h < limit)
        return e;
    for (; last - e >= 2; e += 2) {
        const uint64_t between = (h << 1) + c->once[p[e]];
        h = (h << 2) + (c->twice[p[e]] + c->once[p[e + 1]]);
        if (between < limit)
            return e + 1;
        if (h < limit)
            return e + 2;
    }
    if (e < last && (h << 1) + c->once[p[e]] < limit)
        return last;
    return n < c->maximum ? 0 : c->maximum;
}

/* Writes the ends of the chunks of data[0:n] to `ends`, which has room for n / minimum + 1; returns their number. */
static Py_ssize_t
chunk_ends(const Chunker *c, const unsigned char *data, Py_ssize_t n, int final, int64_t *ends)
{
    Py_ssize_t count = 0, start = 0, length;

    while ((length = chunk_length(c, data + start, n - start)) > 0) {
        start += length;
        ends[count++] = start;
    }
    if (final && start < n)
        ends[count++] = n;
    return count;
}

PyDoc_STRVAR(cut_ends_doc,
"cut_ends(data, table, minimum, maximum, shift, final, /) -> bytes\n\n"
"Ends of the chunks of `data` as packed native int64; `table` is 256 native uint64.");

static PyObject *
cut_ends(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data, table;
    Chunker c;
    Py_ssize_t count;
    int shift, final;
    int64_t *ends = NULL;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "y*y*nnip:cut_ends", &data, &table, &c.minimum, &c.maximum, &shift, &final))
        return NULL;
    if (table.len != (Py_ssize_t)sizeof c.once || c.minimum < WINDOW || c.maximum <= c.minimum ||
        shift < 1 || shift > 63) {
        PyErr_SetString(PyExc_ValueError, "cut_ends: parameters out of range");
        goto done;
    }
    memcpy(c.once, table.buf, sizeof c.once);
    for (int i = 0; i < TABLE_WORDS; i++)
        c.twice[i] = c.once[i] << 1;
    c.limit = (uint64_t)1 << shift;
    ends = PyMem_Malloc(((size_t)(data.len / c.minimum) + 1) * sizeof *ends);
    if (ends == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    count = chunk_ends(&c, data.buf, data.len, final, ends);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize((const char *)ends, count * (Py_ssize_t)sizeof *ends);
done:
    PyMem_Free(ends);
    PyBuffer_Release(&table);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {{"cut_ends", cut_ends, METH_VARARGS, cut_ends_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_cdc", .m_doc = "Content-defined cuts, compiled.", .m_size = 0,
    .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC
PyInit__cdc(void)
{
    return PyModuleDef_Init(&definition);
}
