/* Whole batches of small files, with the GIL released: what dataset_store.local.reading does file by file.
 *
 * Promises: only what is plain is done here. A file that is not as it was found, a link, a path too long, any error of
 * the system: its row is left to the caller, who has a way for each of these and says what is wrong. No allocation but
 * one pointer a path, no state between calls.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 0, MTIME = 1, CTIME = 2, INODE = 3, STAT = 4 };

#if defined(__APPLE__)
#define MTIME_OF(s) ((s).st_mtimespec)
#define CTIME_OF(s) ((s).st_ctimespec)
#else
#define MTIME_OF(s) ((s).st_mtim)
#define CTIME_OF(s) ((s).st_ctim)
#endif

static int64_t
nanoseconds(struct timespec moment)
{
    return (int64_t)moment.tv_sec * 1000000000 + moment.tv_nsec;
}

/* Whether an open file is a regular one of this size and, where they are told, of these times and this inode. */
static int
is_as_found(int file, const int64_t *expected, Py_ssize_t told)
{
    struct stat now;

    if (fstat(file, &now) != 0 || !S_ISREG(now.st_mode) || (int64_t)now.st_size != expected[SIZE])
        return 0;
    return told == 1 ||
           (nanoseconds(MTIME_OF(now)) == expected[MTIME] && nanoseconds(CTIME_OF(now)) == expected[CTIME] &&
            (int64_t)now.st_ino == expected[INODE]);
}

static int
read_exactly(int file, char *into, int64_t size)
{
    int64_t have = 0;

    while (have < size) {
        ssize_t count = read(file, into + have, (size_t)(size - have));
        if (count <= 0)
            return 0;
        have += count;
    }
    return 1;
}

static int
read_one(const char *path, const int64_t *expected, Py_ssize_t told, char *into)
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    int done;

    if (file < 0)
        return 0;
    done = is_as_found(file, expected, told) && read_exactly(file, into, expected[SIZE]) &&
           (told == 1 || is_as_found(file, expected, told));
    close(file);
    return done;
}

PyDoc_STRVAR(read_files_doc,
"read_files(paths, expected, into, /) -> bytes\n\n"
"Read regular files, one behind the other, into a buffer. `paths` is a tuple of bytes; `expected` is native int64,\n"
"either the size of each, or rows of four: size, times of modification and of change in ns, inode. One byte a path\n"
"comes back: 1 where the file was as expected, before and after it was read where times are told, else 0, and its\n"
"room in the buffer means nothing.");

static PyObject *
read_files(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *paths, *result = NULL;
    Py_buffer expected, into;
    const char **names = NULL;
    const int64_t *rows;
    char *done;
    Py_ssize_t count, told, room = 0;

    if (!PyArg_ParseTuple(args, "O!y*w*:read_files", &PyTuple_Type, &paths, &expected, &into))
        return NULL;
    count = PyTuple_Size(paths);
    rows = expected.buf;
    told = count ? expected.len / (Py_ssize_t)sizeof *rows / count : 1;
    if ((told != 1 && told != STAT) || expected.len != count * told * (Py_ssize_t)sizeof *rows)
        goto wrong;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t size = rows[i * told + SIZE];
        if (size < 0 || size > into.len - room)
            goto wrong;
        room += (Py_ssize_t)size;
    }
    names = PyMem_Malloc((size_t)(count ? count : 1) * sizeof *names);
    result = PyBytes_FromStringAndSize(NULL, count);
    if (names == NULL || result == NULL) {
        Py_CLEAR(result);
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *name;
        /* Fails for what is no bytes, and for a zero byte inside. */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(paths, i), &name, NULL) < 0) {
            Py_CLEAR(result);
            goto done;
        }
        names[i] = name;
    }
    done = PyBytes_AsString(result);
    Py_BEGIN_ALLOW_THREADS
    char *at = into.buf;
    for (Py_ssize_t i = 0; i < count; i++) {
        done[i] = (char)read_one(names[i], rows + i * told, told, at);
        at += rows[i * told + SIZE];
    }
    Py_END_ALLOW_THREADS
    goto done;
wrong:
    PyErr_SetString(PyExc_ValueError, "read_files: rows, or room, do not go with the paths");
done:
    PyMem_Free(names);
    PyBuffer_Release(&into);
    PyBuffer_Release(&expected);
    return result;
}

static PyMethodDef methods[] = {{"read_files", read_files, METH_VARARGS, read_files_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_files", .m_doc = "Batches of small files, compiled.", .m_size = 0,
    .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC
PyInit__files(void)
{
    return PyModuleDef_Init(&definition);
}
