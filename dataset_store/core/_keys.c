/* The compiled twin of dataset_store.core.key_tables.cut_keys_reference: the keys of a node, cut out of its bytes and
 * checked by the rules of dataset_store.core.paths.
 *
 * Promises: portable C99; reads nothing outside the bytes that it was given, whatever the ends say. Where a rule is broken
 * it says no more than that: the reference tells which.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

typedef struct {
    Py_ssize_t key, name, names; /* the most bytes of a key and of a name, and the most names of a key */
} Limits;

static int
is_name(const unsigned char *name, Py_ssize_t length, const Limits *most)
{
    if (length == 0 || length > most->name || (length == 1 && name[0] == '.'))
        return 0;
    return !(length == 2 && name[0] == '.' && name[1] == '.');
}

static int
is_key(const unsigned char *key, Py_ssize_t length, const Limits *most)
{
    Py_ssize_t start = 0, names = 1;

    if (length > most->key || memchr(key, '/', (size_t)length) != NULL)
        return 0;
    for (const unsigned char *zero; (zero = memchr(key + start, 0, (size_t)(length - start))) != NULL; names++) {
        if (!is_name(key + start, zero - key - start, most))
            return 0;
        start = zero - key + 1;
    }
    return names <= most->names && is_name(key + start, length - start, most);
}

/* Whether `key` comes before `next` and is none of its directories: key + 1 is not behind `next`. */
static int
comes_before(const unsigned char *key, Py_ssize_t length, const unsigned char *next, Py_ssize_t next_length)
{
    const Py_ssize_t both = length < next_length ? length : next_length;
    const int order = memcmp(key, next, (size_t)both);

    return order < 0 || (order == 0 && next_length > length && next[length] != 0);
}

static uint32_t
little_endian(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Whether the bytes are `count` valid keys in order, one behind the other, with these ends. */
static int
are_keys(const unsigned char *raw, Py_ssize_t size, const unsigned char *ends, Py_ssize_t count, const Limits *most)
{
    Py_ssize_t before = 0, start = 0;

    for (Py_ssize_t row = 0; row < count; row++) {
        const Py_ssize_t end = (Py_ssize_t)little_endian(ends + 4 * row);
        if (end <= start || end > size || !is_key(raw + start, end - start, most))
            return 0;
        if (row && !comes_before(raw + before, start - before, raw + start, end - start))
            return 0;
        before = start;
        start = end;
    }
    return start == size;
}

PyDoc_STRVAR(cut_keys_doc,
"cut_keys(raw, ends, most_key_bytes, most_name_bytes, most_names, /) -> list[bytes] | None\n\n"
"The keys; `ends` are little-endian uint32. None where a rule is broken.");

static PyObject *
cut_keys(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer raw, ends;
    Limits most;
    Py_ssize_t count, start = 0;
    PyObject *keys = NULL;

    if (!PyArg_ParseTuple(args, "y*y*nnn:cut_keys", &raw, &ends, &most.key, &most.name, &most.names))
        return NULL;
    count = ends.len / 4;
    if (ends.len % 4 || !are_keys(raw.buf, raw.len, ends.buf, count, &most)) {
        keys = Py_NewRef(Py_None);
        goto done;
    }
    keys = PyList_New(count);
    for (Py_ssize_t row = 0; keys != NULL && row < count; row++) {
        const Py_ssize_t end = (Py_ssize_t)little_endian((const unsigned char *)ends.buf + 4 * row);
        PyObject *key = PyBytes_FromStringAndSize((const char *)raw.buf + start, end - start);
        if (key == NULL || PyList_SetItem(keys, row, key) < 0)
            Py_CLEAR(keys);
        start = end;
    }
done:
    PyBuffer_Release(&ends);
    PyBuffer_Release(&raw);
    return keys;
}

static PyMethodDef methods[] = {{"cut_keys", cut_keys, METH_VARARGS, cut_keys_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_keys", .m_doc = "Keys of nodes, compiled.", .m_size = 0,
    .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC
PyInit__keys(void)
{
    return PyModuleDef_Init(&definition);
}
